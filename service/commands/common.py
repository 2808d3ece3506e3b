"""Options and output that the commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import httpx
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from evoquality import Client, ServiceError
from evoquality.contract import Mode, Options
from service.errors import UserError
from service.extras import require

out, err = Console(), Console(stderr=True)

Url = Annotated[str, typer.Option(help="Where the service listens.", envvar="EVOQUALITY_URL")]
Key = Annotated[str | None, typer.Option(help="Your key, if the service wants one.", envvar="EVOQUALITY_KEY")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines instead of a table.")]
ModeChoice = Annotated[
    Mode | None, typer.Option(help="The model's own probabilities, or sampled answers. Default: as the service does.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Makes sampled answers repeatable.")]
Temperature = Annotated[float | None, typer.Option(min=0, max=2, help="Of sampled answers; 0 is the most likely one.")]
Votes = Annotated[int | None, typer.Option("--samples", "-k", min=2, max=64, help="Votes per pair, an even number.")]
Image = Annotated[Path, typer.Argument(help="An image file.", exists=True, dir_okay=False)]
LOCAL = "http://127.0.0.1:8000"
UNREACHABLE = "The service cannot be reached. Is `evoquality serve` running, and is the URL right?"

T = TypeVar("T")
Chosen = TypeVar("Chosen", bound=Options)


def options(model: type[Chosen], **given: Any) -> Chosen:
    """The options of a request. A wrong one ends the command."""
    try:
        return model(**given)
    except ValidationError as error:
        wrong = error.errors()[0]
        stop(f"--{wrong['loc'][0]}: {wrong['msg']}.")


def ask(url: str, key: str | None, call: Callable[[Client], T]) -> T:
    """Asks the service. A refusal ends the command with one sentence."""
    try:
        with Client(url, key) as client:
            return call(client)
    except ServiceError as error:
        stop(error.problem.detail)
    except httpx.InvalidURL:
        stop(f"{url} is not a URL. Give one like {LOCAL}.")
    except UnicodeEncodeError:  # of the header with the key
        stop("The key holds characters outside ASCII, which no key has. Give it as `evoquality keys add` showed it.")
    except httpx.TimeoutException:
        stop("The service did not answer in time.")
    except httpx.TransportError:
        stop(UNREACHABLE)


def stop(sentence: str) -> NoReturn:
    """Ends the command with a sentence and exit code 2."""
    err.print(escape(sentence), style="red", highlight=False, soft_wrap=True)
    raise typer.Exit(2)


def need(extra: str, what: str) -> None:
    """Ends the command with one sentence unless an extra is installed."""
    try:
        require(extra, what)
    except UserError as missing:
        stop(f"{missing}.")


def number(value: float | None) -> str:
    """A number for a table; a dash for None."""
    return "–" if value is None else f"{value:.2f}"
