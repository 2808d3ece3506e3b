"""Atomic writes: a reader, or a crash, finds the old file or the whole new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

PARTIAL = ".partial"
"""Names of files that a kill left half written end so."""


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yields a path beside `file` to write to; when the block ends, that file is synced and takes the name.

    A block that fails leaves `file` as it was. Raises OSError.
    """
    beside = file.with_name(f".{file.name}-{uuid4().hex}{PARTIAL}")
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
