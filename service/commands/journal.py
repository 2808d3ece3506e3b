"""The answers so far as JSON lines in a file beside the output, so that a killed run loses nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, ValidationError

from evoquality.contract import ScoreOptions, ScoreResponse
from service.files import printable

State = tuple[int, int]
Answer = ScoreResponse | str
"""A score, or one sentence why there is none."""


class Entry(BaseModel):
    """One answer, with the state of the file and the options at that time. `path` is absolute."""

    image: str
    path: str = ""
    size: int
    modified_ns: int
    options: dict[str, Any]
    result: ScoreResponse | str

    @property
    def place(self) -> str:
        """The file, however it was named."""
        return self.path or os.path.abspath(self.image)


class Journal:
    """Earlier answers for the same file, version and options. New answers are written at once."""

    def __init__(self, file: Path, version: str, options: ScoreOptions) -> None:
        self._file = file
        self._version = version
        self._options = options.model_dump()
        self._known: dict[str, Entry] = {}

    def __enter__(self) -> Self:
        """Reads the lines of an earlier run. A half-written last line, left by a kill, is cut off."""
        if self._file.exists():
            lines = self._file.read_bytes().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith(b"\n")]
            self._known = {entry.place: entry for entry in map(_entry, whole) if entry}
            with self._file.open("r+b") as stream:
                stream.truncate(sum(map(len, whole)))
        self._stream = self._file.open("a", encoding="utf-8")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stream.close()

    def known(self, image: Path) -> ScoreResponse | None:
        """The answer for a file that has not changed since, or None."""
        entry = self._known.get(printable(os.path.abspath(image)))
        if entry is None or isinstance(entry.result, str) or entry.result.version != self._version:
            return None
        same = _given(entry.options) == _given(self._options) and (entry.size, entry.modified_ns) == _state(image)
        return entry.result if same else None

    def others(self, images: Iterable[Path], paths: Iterable[Path]) -> Iterator[tuple[Path, Answer]]:
        """The last answers for files that are not among `images`, without those that are gone from `paths`."""
        asked, looked = ({Path(os.path.abspath(path)) for path in given} for given in (images, paths))
        for entry in self._known.values():
            place = Path(entry.place)
            gone = not looked.isdisjoint({place, *place.parents}) and not place.exists()
            if place not in asked and not gone:
                yield Path(entry.image if os.path.abspath(entry.image) == entry.place else place), entry.result

    def add(self, image: Path, state: State, result: Answer) -> None:
        """Keeps an answer. `state` is the state of the file before it was read."""
        size, modified_ns = state
        entry = Entry(
            image=printable(image),
            path=printable(os.path.abspath(image)),
            size=size,
            modified_ns=modified_ns,
            options=self._options,
            result=result,
        )
        self._stream.write(entry.model_dump_json() + "\n")
        self._stream.flush()


def state_of(image: Path) -> State:
    """Size of a file in bytes, and time of its last change in nanoseconds. Raises OSError."""
    stat = image.stat()
    return stat.st_size, stat.st_mtime_ns


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that ask for something: other versions write others, unset, beside them."""
    return {name: value for name, value in options.items() if value is not None and value is not False}


def _state(image: Path) -> State | None:
    try:
        return state_of(image)
    except OSError:
        return None


def _entry(line: bytes) -> Entry | None:
    try:
        return Entry.model_validate_json(line)
    except ValidationError:
        return None
