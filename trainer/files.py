"""Files that survive a kill and a full disk: written beside, synced, renamed. JSON and JSON lines."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from trainer.errors import DiskFull

PARTIAL = ".partial"
_FULL = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises DiskFull for whatever a library makes of a full disk, a spent quota or a file size limit."""
    try:
        yield
    except Exception as error:
        told = f"{error!r} {error.__context__!r}"  # torch hides it in the context, shutil and safetensors in the text
        if isinstance(error, DiskFull) or not any(reason in told for reason in _FULL):
            raise
        usage = shutil.disk_usage(path.parent)
        raise DiskFull(
            f"{path} could not be written: {next(reason for reason in _FULL if reason in told)} "
            f"({usage.free / 2**20:,.0f} MiB free of {usage.total / 2**20:,.0f}); make room, then start again in "
            "the same folder: nothing is lost, it goes on where it stopped"
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Replaces the file atomically at the end of the block: a reader sees the old content or the new, never a part."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}{PARTIAL}")
        try:
            with beside.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Replaces a file of text atomically."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Replaces a JSON file atomically."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Replaces a file of JSON lines atomically."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def append_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Appends JSON lines and syncs them. A kill may leave a torn last line, which the next append ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    with writing(path), path.open("ab+") as file:
        file.write(("\n" if _is_torn(file) else "").encode() + lines.encode())
        file.flush()
        os.fsync(file.fileno())


def read_jsonl(path: Path) -> Iterator[Any]:
    """Yields the whole lines of a file of JSON lines; a torn line (from a kill) is passed over."""
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
