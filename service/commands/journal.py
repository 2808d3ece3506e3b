"""The scores so far as JSON lines in a file beside the output, so that a killed run loses nothing."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ValidationError

from evoquality.contract import ScoreOptions, ScoreResponse
from service.files import printable


class Entry(BaseModel):
    """One score, with the state of the file and the options at that time."""

    image: str
    size: int
    modified_ns: int
    options: ScoreOptions
    result: ScoreResponse


class Journal:
    """Earlier answers for the same file, version and options. New answers are written at once."""

    def __init__(self, file: Path, version: str, options: ScoreOptions) -> None:
        self._file = file
        self._version = version
        self._options = options
        self._known: dict[str, Entry] = {}

    def __enter__(self) -> Self:
        """Reads the lines of an earlier run. A half-written last line, left by a kill, is cut off."""
        if self._file.exists():
            lines = self._file.read_bytes().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith(b"\n")]
            self._known = {entry.image: entry for entry in map(_entry, whole) if entry}
            with self._file.open("r+b") as stream:
                stream.truncate(sum(map(len, whole)))
        self._stream = self._file.open("a", encoding="utf-8")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stream.close()

    def known(self, image: Path) -> ScoreResponse | None:
        """The answer for a file that has not changed since, or None."""
        entry = self._known.get(printable(image))
        if entry is None or entry.result.version != self._version or entry.options != self._options:
            return None
        return entry.result if (entry.size, entry.modified_ns) == _state(image) else None

    def add(self, image: Path, state: tuple[int, int], result: ScoreResponse) -> None:
        """Keeps an answer. `state` is the state of the file before it was read."""
        size, modified_ns = state
        entry = Entry(image=printable(image), size=size, modified_ns=modified_ns, options=self._options, result=result)
        self._stream.write(entry.model_dump_json() + "\n")
        self._stream.flush()


def state_of(image: Path) -> tuple[int, int]:
    """Size of a file in bytes, and time of its last change in nanoseconds. Raises OSError."""
    stat = image.stat()
    return stat.st_size, stat.st_mtime_ns


def _state(image: Path) -> tuple[int, int] | None:
    try:
        return state_of(image)
    except OSError:
        return None


def _entry(line: bytes) -> Entry | None:
    try:
        return Entry.model_validate_json(line)
    except ValidationError:
        return None
