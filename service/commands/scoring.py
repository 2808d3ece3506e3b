"""Many files scored over HTTP, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import httpx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from service.client import Client, ServiceError
from service.commands.common import err
from service.commands.journal import state_of
from service.contract import ScoreOptions, ScoreResponse

Answer = ScoreResponse | str
State = tuple[int, int]
_ENDS_THE_RUN = {401, 403}


def score_files(
    client: Client, images: Sequence[Path], options: ScoreOptions, jobs: int
) -> Iterator[tuple[Path, State, Answer]]:
    """Every file with its state and its score (or one sentence about why there is none), as they come.

    Raises httpx.TransportError if the service cannot be reached, and ServiceError if it lets nobody in.
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
    """A bar with the rate and the time that remains; the function it gives moves it on by one image."""
    columns = TextColumn("Scoring"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=images, completed=known)
        yield lambda: bar.advance(task)


def failures(answers: Iterable[tuple[Path, Answer]]) -> list[tuple[Path, str]]:
    """The files without a score, and why."""
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
