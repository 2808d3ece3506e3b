"""Progress of long work: the stage, how much is done, the rate and the time left."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from trainer.files import append_jsonl

Advance = Callable[..., None]
_LINE_SECONDS = 15


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        unit = task.fields.get("unit", "")
        return Text(f"{task.speed:.1f} {unit}/s" if task.speed and unit else "")


class Stages:
    """Shows stages as bars on a terminal, as lines elsewhere, and keeps their times in a file."""

    def __init__(self, log: Path | None = None) -> None:
        self._log = log
        self._console = Console()
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(24),
            TextColumn("{task.completed:.0f}/{task.total}"), _Rate(), TimeElapsedColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=self._console, disable=not self._console.is_terminal,
        )  # fmt: skip

    def __enter__(self) -> Stages:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextmanager
    def stage(self, name: str, *, total: int | None, unit: str = "") -> Iterator[Advance]:
        """One stage. Yields `advance(count, note="")`."""
        began, done, last_line = time.time(), 0, time.time()
        bar = self._progress.add_task(name, total=total, unit=unit, note="")
        if not self._console.is_terminal:
            self._console.print(f"{name} ...")

        def advance(count: int = 1, note: str = "") -> None:
            nonlocal done, last_line
            done += count
            self._progress.update(bar, advance=count, note=note)
            if not self._console.is_terminal and total and time.time() - last_line > _LINE_SECONDS:
                last_line = time.time()
                rate = done / (last_line - began)
                left = (total - done) / rate if rate else 0
                self._console.print(f"{name}: {done}/{total}, {rate:.1f} {unit}/s, {left:.0f} s left  {note}")

        yield advance
        ended = time.time()
        self._progress.update(bar, completed=total or 1, total=total or 1)
        if not self._console.is_terminal:
            self._console.print(f"{name}: done in {ended - began:.1f} s")
        if self._log:
            append_jsonl(self._log, [{"stage": name, "began": began, "ended": ended}])

    def say(self, text: str) -> None:
        """Prints a line above the bars."""
        self._console.print(text)


def stage_times(log: Path) -> list[dict[str, object]]:
    """What `Stages` kept: stage, began, ended (seconds since the epoch)."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
