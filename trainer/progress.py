"""Progress of long work: the stage, the share done, the rate and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from trainer.files import append_jsonl, read_jsonl

Advance = Callable[..., None]
_LINE_SECONDS = 15


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        unit = task.fields.get("unit", "")
        return Text(f"{task.speed:.1f} {unit}/s" if task.speed and unit else "")


class Stages:
    """Shows each stage as a bar on a terminal and as lines elsewhere, and logs the stages' times to a file."""

    def __init__(self, log: Path | None = None) -> None:
        self._log = log
        self._console = Console()

    @contextmanager
    def stage(self, name: str, *, total: int | None, unit: str = "") -> Iterator[Advance]:
        """One stage. Yields `advance(count, note="")`."""
        began = time.time()
        show = self._bar if self._console.is_interactive else self._lines
        try:
            with show(name, total, unit) as advance:
                yield advance
        finally:
            if self._log:
                append_jsonl(self._log, [{"stage": name, "began": began, "ended": time.time()}])

    def say(self, sentence: str) -> None:
        """A line above the bar, or between the lines."""
        self._console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def _bar(self, name: str, total: int | None, unit: str) -> Iterator[Advance]:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(24),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self._console) as progress:
            bar = progress.add_task(name, total=total, unit=unit, note="")
            yield lambda count=1, note="": progress.update(bar, advance=count, note=note)
            done = total or progress.tasks[0].completed or 1
            progress.update(bar, completed=done, total=done)

    @contextmanager
    def _lines(self, name: str, total: int | None, unit: str) -> Iterator[Advance]:
        began, done, last = time.time(), 0, time.time()
        self._console.print(f"{name} ...")

        def advance(count: int = 1, note: str = "") -> None:
            nonlocal done, last
            done += count
            if unit and time.time() - last > _LINE_SECONDS:
                last = time.time()
                rate = done / (last - began)
                left = f", {(total - done) / rate:.0f} s left" if total and rate else ""
                of = f"{done}/{total}" if total else f"{done} {unit}"
                self._console.print(f"{name}: {of}, {rate:.1f} {unit}/s{left}  {note}")

        yield advance
        self._console.print(f"{name}: done in {time.time() - began:.1f} s")


def stage_times(log: Path) -> list[dict[str, Any]]:
    """The log of `Stages`: stage, began, ended (seconds since the epoch)."""
    return list(read_jsonl(log))


def duration(seconds: float) -> str:
    """Seconds below two minutes, minutes below two hours, then hours."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
