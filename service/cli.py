"""`evoquality serve | score | compare | rank | versions | info`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from service.commands.common import stop
from service.commands.compare import compare, rank
from service.commands.score import score
from service.commands.versions import app as versions
from service.commands.versions import info
from service.errors import ServiceError as Refusal

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (score, compare, rank, info):
    app.command()(command)
app.add_typer(versions, name="versions")


class ProfileChoice(StrEnum):
    """The answer formats of `service/prompts.py`, for --help."""

    plain = "plain"
    evoquality = "evoquality"
    visualquality_r1 = "visualquality-r1"


@app.callback()
def main() -> None:
    """Judges the perceptual quality of images with a vision-language model that improves itself.

    Start with `evoquality serve --checkpoint trainer/demo/checkpoint`, then
    `evoquality score photo.jpg` from another terminal; `evoquality score photos/ --out scores.csv` for a folder.
    """


@app.command()
def serve(
    checkpoint: Annotated[Path | None, typer.Option(help="Begins a new store with this checkpoint.")] = None,
    store: Annotated[Path | None, typer.Option(help="The version store. Default: ./store")] = None,
    profile: Annotated[ProfileChoice | None, typer.Option(help="How that checkpoint answers.")] = None,
    host: Annotated[str | None, typer.Option(help="Public address. Default: 127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Public port. Default: 8000")] = None,
    operator_host: Annotated[str | None, typer.Option(help="Operators' address. Default: 127.0.0.1")] = None,
    operator_port: Annotated[int | None, typer.Option(help="Operators' port. Default: 8001")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or auto.")] = None,
    max_model_len: Annotated[int | None, typer.Option(help="Tokens of a prompt and its answer.")] = None,
) -> None:
    """Serves the active version of a store: public routes, and the operators' on a port of their own.

    Every setting, these and the others, is also an environment variable `EVOQUALITY_<NAME>`; see
    `service/settings.py`.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    from service.server import run
    from service.settings import Settings

    try:
        raise typer.Exit(run(Settings(**given)))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        stop(f"Wrong setting: {wrong}.")
    except (ValueError, OSError, Refusal) as error:
        stop(f"Cannot start: {error}.")


if __name__ == "__main__":
    app()
