"""`evoquality serve`: a flag for every setting, made from the settings' own descriptions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from service.commands.common import need, stop
from service.configuration import catalogue
from service.configuration.catalogue import Entry
from service.configuration.settings import Settings
from service.configuration.sources import flag, sentence
from service.errors import UserError


def _with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Gives the command one option for each setting."""
    command.__signature__ = inspect.Signature([_parameter(entry) for entry in catalogue.settings()])  # type: ignore[attr-defined]
    command.__annotations__ = {}
    return command


def _parameter(entry: Entry) -> inspect.Parameter:
    is_switch = entry.kind == "BOOLEAN"
    name = flag(entry.name)
    names = f"{name}/{name.replace('--', '--no-', 1)}" if is_switch else name
    option = typer.Option(
        names,
        help=entry.help,
        metavar=None if is_switch else entry.kind,
        show_default=entry.default or False,
        rich_help_panel=entry.section,
    )
    annotation = Annotated[bool | None, option] if is_switch else Annotated[str | None, option]
    return inspect.Parameter(entry.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


@_with_flags
def serve(**given: Any) -> None:
    """Serves the active version of a store: public routes, and the operators' on a port of their own.

    Every setting is a flag, an environment variable (`--max-in-flight` is `EVOQUALITY_MAX_IN_FLIGHT`) and a key of the
    TOML file that `--config` names (`max_in_flight = 64`). Flags override the environment, which overrides the file.

    Exit codes: 0 after SIGTERM or Ctrl-C; 1 if the engine died or the service failed; 2 for a mistake in a setting, a
    file or the store, reported in one sentence; 3 if the engine hung.
    """
    need("cpu", "serve")
    settings = _chosen({name: value for name, value in given.items() if value is not None})
    from service.server import run

    try:
        raise typer.Exit(run(settings))
    except UserError as error:
        stop(f"Cannot start: {error}")


def _chosen(given: dict[str, Any]) -> Settings:
    """The settings from flags, environment and file. A wrong one ends the command."""
    try:
        return Settings(**given)
    except ValidationError as error:
        stop(f"Wrong setting: {sentence(error)}")
    except (SettingsError, UserError) as error:
        stop(f"Wrong setting: {error}")
