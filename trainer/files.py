"""Files that survive a kill and a full disk: JSON and JSON lines."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from service import files
from trainer.errors import DiskFull, UserError

T = TypeVar("T")

_FULL = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]


_MENDABLE = {
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}
"""A person mends these by another path or other permissions. All others, such as EIO, may pass."""


@contextmanager
def named(path: Path, flag: str) -> Iterator[None]:
    """Wraps the first use of a path that a person named with `flag`.

    Raises:
        UserError: the path is missing, of the wrong kind or not permitted.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _MENDABLE:
            raise
        raise UserError(
            f"{flag} {path} cannot be used ({error.strerror}); name another path, or mend its permissions"
        ) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Wraps the writing of a file. Raises DiskFull for any library's error about a full disk, quota or size limit."""
    try:
        yield
    except Exception as error:
        text = f"{error!r} {error.__context__!r}"  # torch hides it in the context, shutil and safetensors in the text
        if isinstance(error, DiskFull) or not any(reason in text for reason in _FULL):
            raise
        usage = shutil.disk_usage(path.parent)
        raise DiskFull(
            f"{path} could not be written: {next(reason for reason in _FULL if reason in text)} "
            f"({usage.free / 2**20:,.0f} MiB free of {usage.total / 2**20:,.0f}); make room and start again with the "
            "same folder: nothing is lost, and it resumes where it stopped"
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Replaces a file atomically at the end of the block, in a folder that is made if missing. Raises DiskFull."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as beside, beside.open("wb") as file:
            yield file


def write_text(path: Path, text: str) -> None:
    """Replaces a file of text atomically."""
    with replacing(path) as file:
        file.write(text.encode(errors="backslashreplace"))  # names that are not UTF-8


def write_json(path: Path, value: Any) -> None:
    """Replaces a JSON file atomically."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def built(kind: type[T], row: Mapping[str, Any]) -> T:
    """A dataclass's object from a row of a file. Fields that a newer version wrote are ignored."""
    return kind(**{name: value for name, value in row.items() if name in kind.__match_args__})  # type: ignore[attr-defined]


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Replaces a file of JSON lines atomically."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def append_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Appends JSON lines and syncs them. A kill may leave a torn last line; the next append ends it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    with writing(path), path.open("ab+") as file:
        file.write(("\n" if _is_torn(file) else "").encode() + lines.encode())
        file.flush()
        os.fsync(file.fileno())


def read_jsonl(path: Path) -> Iterator[Any]:
    """Yields the lines of a file of JSON lines, none if there is no file. A line torn by a kill is skipped."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def _is_torn(file: IO[bytes]) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"
