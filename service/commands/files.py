"""The image files that a command works on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from service.commands.common import stop

SUFFIXES = frozenset({".avif", ".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def images_in(paths: Sequence[Path], pattern: str | None) -> list[Path]:
    """The files in `paths`, and those in its folders at any depth, each once.

    In a folder, `pattern` selects the files; without it, the suffixes of the formats that the service reads. Ends the
    command if there are no files.
    """
    once: dict[str, Path] = {}
    for path in paths:
        for file in _files(path, pattern):
            once.setdefault(os.path.abspath(file), file)
    found = list(once.values())
    if not found:
        stop(f"No image files found. In folders, names must match {pattern or ', '.join(sorted(SUFFIXES))}.")
    return found


def _files(path: Path, pattern: str | None) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for file in sorted(path.rglob(pattern or "*")):
        if file.is_file() and (pattern or file.suffix.lower() in SUFFIXES):
            yield file
