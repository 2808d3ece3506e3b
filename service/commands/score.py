"""`evoquality score`"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from evoquality import Client, ServiceError
from evoquality.contract import ScoreOptions, ScoreResponse
from service.commands import tables
from service.commands.common import (
    LOCAL,
    AsJson,
    FollowLinks,
    Key,
    ModeChoice,
    Pattern,
    Seed,
    Temperature,
    Url,
    ask,
    err,
    number,
    show,
    stop,
)
from service.commands.common import options as chosen
from service.commands.files import images_in
from service.commands.journal import Journal, state_of
from service.files import printable


def score(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Image files, and folders.", exists=True)],
    pattern: Pattern = None,
    follow_links: FollowLinks = False,
    to: Annotated[
        Path | None,
        typer.Option("--out", help="Write a .csv, .jsonl or .parquet file; resume where an earlier run stopped."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=256, help="Images in flight at the same time.")] = 8,
    mode: ModeChoice = None,
    samples: Annotated[int | None, typer.Option("--samples", "-k", min=1, max=64, help="Answers per image.")] = None,
    temperature: Temperature = None,
    seed: Seed = None,
    url: Url = LOCAL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Scores images from 1 (very poor) to 5 (excellent).

    `evoquality score photos/ --out scores.csv` scores a folder, at any depth. It also keeps every score in
    `scores.csv.journal`. Start the same command again after an interruption, or after you added pictures: it asks only
    about pictures that are missing, changed, or scored by other weights or options.

    Files of other kinds and linked folders are passed over, and counted. Exit codes: 0 if every image has a score; 1 if
    some have none, or a folder cannot be read (they are listed with the reason, and tried again next time); 2 if
    nothing could be done.
    """
    options = chosen(ScoreOptions, mode=mode, samples=samples, temperature=temperature, seed=seed)
    if to is not None:
        tables.check(to)
    found = ask(url, key, lambda client: images_in(client, paths, pattern, follow_links))
    try:
        answers = ask(url, key, lambda client: _answers(client, found.files, options, jobs, to))
        if to is not None:
            tables.write(to, answers)
    except OSError as error:
        stop(f"--out {to}: {error.strerror}.")
    if to is not None:
        _summary(to, answers)
    elif as_json:
        for image, answer in answers.items():
            row = {"error": answer} if isinstance(answer, str) else answer.model_dump(exclude={"image"})
            print(json.dumps({"image": printable(image), **row}))
    else:
        show(_table(answers))
    raise typer.Exit(0 if found.complete and not failures(answers.items()) else 1)


def _answers(
    client: Client, images: list[Path], options: ScoreOptions, jobs: int, to: Path | None
) -> dict[Path, Answer]:
    """An answer to every image, in their order. With an output, the answers in its journal are not asked for again."""
    if to is None:
        found: dict[Path, Answer] = {}
        with progress(len(images), 0) as advance:
            for image, _, answer in score_files(client, images, options, jobs):
                found[image] = answer
                advance()
        return {image: found[image] for image in images}
    version = client.versions().active
    with Journal(to.with_name(f"{to.name}.journal"), version, options) as journal:
        found = {image: known for image in images if (known := journal.known(image)) is not None}
        missing = [image for image in images if image not in found]
        with progress(len(images), len(found)) as advance:
            for image, state, answer in score_files(client, missing, options, jobs):
                found[image] = answer
                if not isinstance(answer, str):
                    journal.add(image, state, answer)
                advance()
    return {image: found[image] for image in images}


def _summary(to: Path, answers: dict[Path, Answer]) -> None:
    failed = failures(answers.items())
    for image, reason in failed:
        err.print(f"[red]{escape(printable(image))}: {escape(reason)}[/red]", highlight=False, soft_wrap=True)
    versions = {answer.version for answer in answers.values() if not isinstance(answer, str)}
    if len(versions) > 1:
        err.print("The weights changed during the run. Start it again to score the rest anew.", style="yellow")
    err.print(
        f"{len(answers) - len(failed)} scored, {len(failed)} without a score: {escape(str(to))}",
        highlight=False,
        soft_wrap=True,
    )


def _table(answers: dict[Path, Answer]) -> Table:
    table = Table("image", "score", "± std", "unreadable", "version")
    for image, answer in answers.items():
        name = escape(printable(image))
        if isinstance(answer, str):
            table.add_row(name, f"[red]{escape(answer)}[/red]")
        else:
            unreadable = f"{answer.unreadable:.0%}"
            table.add_row(name, number(answer.score), number(answer.std), unreadable, answer.version)
    return table


Answer = ScoreResponse | str
State = tuple[int, int]
_ENDS_THE_RUN = {401, 403}


def score_files(
    client: Client, images: Sequence[Path], options: ScoreOptions, jobs: int
) -> Iterator[tuple[Path, State, Answer]]:
    """Yields every file with its state and its score, or one sentence why it has none, as the answers arrive.

    Raises httpx.TransportError if the service cannot be reached, and ServiceError if it refuses the key.
    """
    pool = ThreadPoolExecutor(jobs)
    try:
        running = {pool.submit(_score, client, image, options): image for image in images}
        for done in as_completed(running):
            yield running[done], *done.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def progress(images: int, known: int) -> Iterator[Callable[[], None]]:
    """Shows a bar with the rate and the remaining time. The yielded function advances it by one image."""
    columns = TextColumn("Scoring"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=images, completed=known)
        yield lambda: bar.advance(task)


def failures(answers: Iterable[tuple[Path, Answer]]) -> list[tuple[Path, str]]:
    """The files without a score, each with the reason."""
    return [(image, answer) for image, answer in answers if isinstance(answer, str)]


def _score(client: Client, image: Path, options: ScoreOptions) -> tuple[State, Answer]:
    try:
        state = state_of(image)
        return state, client.score(image, options)
    except OSError:
        return (0, 0), "The file cannot be read."
    except httpx.TimeoutException:
        return state, "The service did not answer in time."
    except ServiceError as error:
        if error.problem.status in _ENDS_THE_RUN:
            raise
        return state, error.problem.detail


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} images/s")
