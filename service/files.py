"""Atomic writes, and reads that expect anything. A reader, or a crash, finds the old file or the whole new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from pydantic import BaseModel, ValidationError

LARGEST = 16 * 2**20
"""Bytes of a JSON file; more is not read."""

M = TypeVar("M", bound=BaseModel)


class Unreadable(Exception):
    """A file that is there but does not hold what it should. The text says why."""


def read_json(file: Path, model: type[M]) -> M:
    """What a JSON file holds. Raises FileNotFoundError; Unreadable for whatever else may lie there."""
    try:
        if file.is_symlink() or (file.exists() and not file.is_file()):  # opening a pipe would wait for ever
            raise Unreadable("it is not a regular file")
        with file.open("rb") as stream:
            data = stream.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise Unreadable(f"it is longer than {LARGEST} bytes")
        return model.model_validate_json(data)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(file) from None
    except OSError as error:
        raise Unreadable(error.strerror or "an error of the disk") from None
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        raise Unreadable(f"{'.'.join(map(str, wrong['loc'])) or 'its content'}: {wrong['msg']}"[:200]) from None


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yields a path beside `file` to write to; when the block ends, that file is synced and takes the name.

    A block that fails leaves `file` as it was. Raises OSError.
    """
    beside = file.with_name(f".{file.name}-{uuid4().hex}")
    try:
        yield beside
        sync(beside)
        os.replace(beside, file)
    finally:
        beside.unlink(missing_ok=True)  # a full disk leaves a part
    sync(file.parent)


def write_atomically(file: Path, text: str, mode: int = 0o666) -> None:
    """Replaces a text file. `mode` is its permissions before the umask. Raises OSError."""
    with replacing(file) as beside, open(beside, "x", opener=lambda path, flags: os.open(path, flags, mode)) as stream:
        stream.write(text)


def sync(path: Path) -> None:
    """Flushes a file or a folder to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
