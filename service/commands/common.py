"""Options and output that the commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import httpx
import typer
from pydantic import ValidationError
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evoquality import Client, ServiceError
from evoquality.contract import CompareResponse, Mode, Options, RankResponse, ScoreResponse
from evoquality.network import without_user
from service.errors import UserError
from service.extras import require

out, err = Console(), Console(stderr=True)

Url = Annotated[str, typer.Option(help="Where the service listens.", envvar="EVOQUALITY_URL")]
Key = Annotated[str | None, typer.Option(help="Your key, if the service wants one.", envvar="EVOQUALITY_KEY")]
TimeLimit = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for an answer.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines instead of a table.")]
ModeChoice = Annotated[
    Mode | None, typer.Option(help="The model's own probabilities, or sampled answers. Default: as the service does.")
]
Seed = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER|random",
        help="Of what is sampled. Default: one that is made of the pictures; random: another one every time.",
    ),
]
Temperature = Annotated[float | None, typer.Option(min=0, max=2, help="Of what is sampled; 0 is the most likely.")]
Votes = Annotated[int | None, typer.Option("--samples", "-k", min=2, max=64, help="Votes per pair, an even number.")]
EvenThoughts = Annotated[
    int | None, typer.Option("--thoughts", min=2, max=64, help="Of a model that thinks, per pair; an even number.")
]
Image = Annotated[Path, typer.Argument(help="An image file.", exists=True, dir_okay=False)]
Pattern = Annotated[str | None, typer.Option(help="Which files of a folder, in either case, for example '*.jpg'.")]
FollowLinks = Annotated[bool, typer.Option("--follow-links", help="Enter linked folders, each once.")]
LOCAL = "http://127.0.0.1:8000"
TIMEOUT_S = 300.0
LATE = "The service did not answer in time. See its log, or give it longer with --timeout."

T = TypeVar("T")
Chosen = TypeVar("Chosen", bound=Options)


def options(model: type[Chosen], **given: Any) -> Chosen:
    """The options of a request. A wrong one ends the command."""
    try:
        return model(**given)
    except ValidationError as error:
        wrong = error.errors()[0]
        stop(f"--{wrong['loc'][0]}: {wrong['msg']}.")


def ask(url: str, key: str | None, call: Callable[[Client], T], timeout_s: float, patience_s: float = 0.0) -> T:
    """Asks the service. A refusal ends the command with one sentence."""
    try:
        with Client(url, key, timeout_s, patience_s) as client:
            return call(client)
    except ServiceError as error:
        stop(error.problem.detail)
    except httpx.InvalidURL as error:
        stop(f"{error}.")
    except UnicodeEncodeError:  # of the header with the key
        stop("The key holds characters outside ASCII, which no key has. Give it as `evoquality keys add` showed it.")
    except httpx.TransportError as error:
        if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
            stop(LATE)
        where = without_user(url)
        stop(f"{where} cannot be reached ({error}). Is `evoquality serve` running, and is the URL right?")


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


def show(table: Table) -> None:
    """Prints a table. No word of it is cut: a terminal too narrow for that wraps the lines."""
    for column in table.columns:
        words = (word for cell in (column.header, *column.cells) for word in str(cell).split())
        column.min_width = max(map(cell_len, words), default=None)
    out.print(table, crop=False)


def unread(answer: ScoreResponse | CompareResponse | RankResponse, what: str = "") -> str:
    """The share of unreadable answers, named `what`, and of those that were cut off, if any were."""
    cut_off = f", {answer.cut_off:.0%} cut off" if answer.cut_off else ""
    return f"{answer.unreadable:.0%}{what}{cut_off}"


def number(value: float | None) -> str:
    """A number for a table; a dash for None."""
    return "–" if value is None else f"{value:z.2f}"
