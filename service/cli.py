"""`evoquality serve | score | compare | versions`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import httpx
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from service.client import Client, ServiceError
from service.contract import CompareOptions, ScoreOptions, ScoreResponse
from service.errors import ServiceError as Refusal

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
out, err = Console(), Console(stderr=True)

Url = Annotated[str, typer.Option(help="Where the service listens.", envvar="EVOQUALITY_URL")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines instead of a table.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Makes sampled answers repeatable.")]
Temperature = Annotated[float, typer.Option(min=0, max=2, help="0 asks for the most likely answer.")]
Image = Annotated[Path, typer.Argument(help="An image file.", exists=True, dir_okay=False)]
Images = Annotated[list[Path], typer.Argument(help="Image files.", exists=True, dir_okay=False)]
LOCAL = "http://127.0.0.1:8000"
IN_PARALLEL = 8

T = TypeVar("T")


class ProfileChoice(StrEnum):
    """The answer formats of `service/prompts.py`, for --help."""

    plain = "plain"
    evoquality = "evoquality"
    visualquality_r1 = "visualquality-r1"


@app.callback()
def main() -> None:
    """Judges the perceptual quality of images with a vision-language model that improves itself.

    Start with `evoquality serve --checkpoint trainer/demo/checkpoint`, then
    `evoquality score photo.jpg` from another terminal.
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
        _stop(f"Wrong setting: {wrong}.")
    except (ValueError, OSError, Refusal) as error:
        _stop(f"Cannot start: {error}.")


@app.command()
def score(
    images: Images,
    samples: Annotated[int, typer.Option("--samples", "-k", min=1, max=64, help="Answers per image.")] = 8,
    temperature: Temperature = 1.0,
    seed: Seed = None,
    url: Url = LOCAL,
    as_json: AsJson = False,
) -> None:
    """Scores image files from 1 (very poor) to 5 (excellent)."""
    options = ScoreOptions(samples=samples, temperature=temperature, seed=seed)
    with Client(url) as client, ThreadPoolExecutor(IN_PARALLEL) as pool:
        running = pool.map(lambda image: _ask(lambda: client.score(image, options)), images)
        answers = list(track(running, "Scoring", len(images), console=err, transient=True))
    if as_json:
        for image, answer in zip(images, answers, strict=True):
            print(json.dumps({"image": str(image), **_as_dict(answer)}))
    else:
        out.print(_score_table(images, answers))
    raise typer.Exit(any(isinstance(answer, str) for answer in answers))


@app.command()
def compare(
    first: Image,
    second: Image,
    samples: Annotated[int, typer.Option("--samples", "-k", min=2, max=64, help="An even number.")] = 8,
    temperature: Temperature = 1.0,
    seed: Seed = None,
    url: Url = LOCAL,
    as_json: AsJson = False,
) -> None:
    """Says which of two image files looks better, by votes in both orders of presentation."""
    try:
        options = CompareOptions(samples=samples, temperature=temperature, seed=seed)
    except ValidationError as error:
        _stop(f"--samples: {error.errors()[0]['msg']}.")
    with Client(url) as client:
        answer = _ask(lambda: client.compare(first, second, options))
    if isinstance(answer, str):
        _stop(answer)
    if as_json:
        print(answer.model_dump_json())
        return
    names = {"first": str(first), "second": str(second), "tie": "a tie", None: "no readable answer"}
    out.print(f"[bold]{escape(names[answer.preferred])}[/bold]")
    probability = "–" if answer.probability_first is None else f"{answer.probability_first:.2f}"
    out.print(f"probability of the first {probability}, {answer.unreadable:.0%} unreadable (version {answer.version})")


@app.command()
def versions(url: Url = LOCAL, as_json: AsJson = False) -> None:
    """Lists the versions of the weights, the active one and the one a rollback leads to."""
    with Client(url) as client:
        answer = _ask(client.versions)
    if isinstance(answer, str):
        _stop(answer)
    if as_json:
        print(answer.model_dump_json())
        return
    table = Table("", "version", "parent", "created", "profile", "origin")
    for info in answer.versions:
        mark = {answer.active: "active", answer.previous: "previous"}.get(info.id, "")
        created = f"{info.created:%Y-%m-%d %H:%M}"
        table.add_row(mark, info.id, info.parent or "", created, info.profile, escape(info.origin))
    out.print(table)


def _ask(call: Callable[[], T]) -> T | str:
    """An answer, or one sentence about why there is none."""
    try:
        return call()
    except ServiceError as error:
        return error.problem.detail
    except httpx.TransportError:
        return "The service cannot be reached. Is `evoquality serve` running, and is --url right?"


def _as_dict(answer: ScoreResponse | str) -> dict[str, Any]:
    return {"error": answer} if isinstance(answer, str) else answer.model_dump()


def _score_table(images: Sequence[Path], answers: Sequence[ScoreResponse | str]) -> Table:
    table = Table("image", "score", "± std", "unreadable", "version")
    for image, answer in zip(images, answers, strict=True):
        if isinstance(answer, str):
            table.add_row(escape(str(image)), f"[red]{escape(answer)}[/red]")
        else:
            score, std = ("–" if value is None else f"{value:.2f}" for value in (answer.score, answer.std))
            unreadable = f"{answer.unreadable:.0%}"
            table.add_row(escape(str(image)), score, std, unreadable, answer.version)
    return table


def _stop(sentence: str) -> NoReturn:
    err.print(escape(sentence), style="red", highlight=False)
    raise typer.Exit(2)
