"""`evoquality score`"""

from __future__ import annotations

import json
import os
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
from evoquality.contract import ScoreOptions
from evoquality.retries import is_outage
from service.commands import tables
from service.commands.common import (
    LATE,
    LOCAL,
    TIMEOUT_S,
    AsJson,
    FollowLinks,
    Key,
    ModeChoice,
    Pattern,
    Seed,
    Temperature,
    TimeLimit,
    Url,
    ask,
    err,
    number,
    show,
    stop,
    unread,
)
from service.commands.common import options as chosen
from service.commands.files import images_in
from service.commands.journal import Answer, Journal, State, state_of
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
    thoughts: Annotated[
        int | None, typer.Option(min=1, max=64, help="Of a model that thinks: thoughts per image.")
    ] = None,
    temperature: Temperature = None,
    seed: Seed = None,
    url: Url = LOCAL,
    key: Key = None,
    timeout: TimeLimit = TIMEOUT_S,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a service that goes away during the run.")
    ] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Scores images from 1 (very poor) to 5 (excellent).

    `evoquality score photos/ --out scores.csv` scores a folder, at any depth. It also keeps every score in
    `scores.csv.journal`. Start the same command again after an interruption, or after you added pictures: it asks only
    about pictures that are missing, changed, or scored by other weights or options. Rows of other pictures stay.

    Files of other kinds and linked folders are passed over, and counted. Exit codes: 0 if every image has a score; 1 if
    some have none, or a folder cannot be read (they are listed with the reason, and tried again next time); 2 if
    nothing could be done, or the service went away; 130 after Ctrl-C.
    """
    options = chosen(ScoreOptions, mode=mode, samples=samples, thoughts=thoughts, temperature=temperature, seed=seed)
    if to is not None:
        tables.check(to)
    found = ask(url, key, lambda client: images_in(client, paths, pattern, follow_links), timeout)
    try:
        with _how_to_go_on(to, len(found.files)):
            answers, others = ask(
                url, key, lambda client: _answers(client, found.files, paths, options, jobs, to), timeout, patience
            )
        if to is not None:
            tables.write(to, others | answers)
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


@contextmanager
def _how_to_go_on(to: Path | None, images: int) -> Iterator[None]:
    """Says what is kept of a run that ends early."""
    try:
        yield
    except (typer.Exit, KeyboardInterrupt) as end:
        if to is None and images > 1:
            err.print("Nothing is kept of a run without --out.")
        elif to and _journal(to).exists():
            kept = f"The scores so far are kept in {_journal(to)}. Start the same command again to go on."
            err.print(escape(kept), highlight=False, soft_wrap=True)
        if isinstance(end, KeyboardInterrupt):
            os._exit(_INTERRUPTED)  # threads that still wait for answers would hold the process up
        raise


def _answers(
    client: Client, images: list[Path], paths: list[Path], options: ScoreOptions, jobs: int, to: Path | None
) -> tuple[dict[Path, Answer], dict[Path, Answer]]:
    """An answer to every image, in their order, and the answers to others that the output's journal knows.

    With an output, the answers in its journal are not asked for again.
    """
    if to is None:
        found: dict[Path, Answer] = {}
        with progress(client, len(images), 0) as advance:
            for image, _, answer in score_files(client, images, options, jobs):
                found[image] = answer
                advance()
        return {image: found[image] for image in images}, {}
    version = client.versions().active
    with Journal(_journal(to), version, options) as journal:
        found = {image: known for image in images if (known := journal.known(image)) is not None}
        missing = [image for image in images if image not in found]
        with progress(client, len(images), len(found)) as advance:
            for image, state, answer in score_files(client, missing, options, jobs):
                found[image] = answer
                journal.add(image, state, answer)
                advance()
        return {image: found[image] for image in images}, dict(journal.others(images, paths))


def _journal(to: Path) -> Path:
    return to.with_name(f"{to.name}.journal")


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
            table.add_row(name, number(answer.score), number(answer.std), unread(answer), answer.version)
    return table


_SCORING = "Scoring"
_INTERRUPTED = 130
_ENDS_THE_RUN = {401, 403}


def score_files(
    client: Client, images: Sequence[Path], options: ScoreOptions, jobs: int
) -> Iterator[tuple[Path, State, Answer]]:
    """Yields every file with its state and its score, or one sentence why it has none, as the answers arrive.

    Raises httpx.TransportError if the service cannot be reached, and ServiceError if it refuses the key or something in
    front of it says that it is away.
    """
    pool = ThreadPoolExecutor(jobs)
    try:
        running = {pool.submit(_score, client, image, options): image for image in images}
        for done in as_completed(running):
            yield running[done], *done.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def progress(client: Client, images: int, known: int) -> Iterator[Callable[[], None]]:
    """Shows a bar with the rate, the remaining time, and why the client waits. The yielded function advances it by one
    image."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(_SCORING, total=images, completed=known)
        client.waiting = lambda reason: bar.update(task, description=escape(f"Waiting: {reason}"))
        yield lambda: bar.update(task, advance=1, description=_SCORING)


def failures(answers: Iterable[tuple[Path, Answer]]) -> list[tuple[Path, str]]:
    """The files without a score, each with the reason."""
    return [(image, answer) for image, answer in answers if isinstance(answer, str)]


def _score(client: Client, image: Path, options: ScoreOptions) -> tuple[State, Answer]:
    try:
        state = state_of(image)
        return state, client.score(image, options)
    except OSError:
        return (0, 0), "The file cannot be read."
    except (httpx.TransportError, ServiceError) as error:
        if is_outage(error) or (isinstance(error, ServiceError) and error.problem.status in _ENDS_THE_RUN):
            raise
        if isinstance(error, httpx.TransportError):
            return state, LATE
        return state, error.problem.detail


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} images/s")
