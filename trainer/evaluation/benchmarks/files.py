"""Finds files whatever the case of their names; lists folders and opens nothing."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath

from trainer.errors import UserError

FIRST = 20
"""Images by which the folder of a list is recognised: single ones may be missing."""


def find(root: Path, pattern: str) -> list[Path]:
    """What lies at a pattern such as `dst_imgs/*` below a folder, in any case of letters, by name."""
    found = [root]
    for part in PurePosixPath(pattern).parts:
        found = [folder / name for folder in found for name in sorted(_names(folder)) if _fits(name, part)]
    return found


def fits(path: Path, pattern: str) -> bool:
    """Whether a path ends in a pattern, in any case of letters."""
    parts = PurePosixPath(pattern).parts
    return len(path.parts) > len(parts) and all(map(_fits, path.parts[-len(parts) :], parts))


def locate(root: Path, folders: Sequence[str], names: Sequence[str]) -> list[str | None]:
    """Where each image is, relative to `root`; None where it is missing. Every folder is listed once.

    Raises:
        ValueError: a name is an absolute path.
    """
    if absolute := next((name for name in names if PurePosixPath(name).is_absolute()), None):
        raise UserError(f"images must be named relative to {root}, but one is {absolute}")
    candidates = [folder for pattern in folders for folder in find(root, pattern) if folder.is_dir()]
    listed = cache(_files)

    def one(name: str) -> str | None:
        path = PurePosixPath(name)
        names = (path.name, path.name.lower())
        hits = (listed(folder, path.parent).get(name) for folder in candidates for name in names)
        found = next((hit for hit in hits if hit), None)
        return found.relative_to(root).as_posix() if found else None

    return [one(name) for name in names]


def ancestors(path: Path) -> Iterator[Path]:
    """The folders that a file is in, the innermost first."""
    return iter(path.absolute().parents)


def ancestor_with(file: Path, images: Sequence[str]) -> Path:
    """The innermost folder that a file is in below which one of its first images lies. Raises ValueError for none."""
    for root in ancestors(file):
        if any(locate(root, ["."], images[:FIRST])):
            return root
    raise UserError(f"{file} names images such as {images[0]}, but none of the folders it is in has them below it")


def _files(folder: Path, parent: PurePosixPath) -> dict[str, Path]:
    """Files by their names, and by their names in small letters."""
    files = [path / name for path in find(folder, glob.escape(str(parent))) for name in _names(path)]
    return {path.name.lower(): path for path in reversed(files)} | {path.name: path for path in reversed(files)}


def _names(folder: Path) -> list[str]:
    """Nothing of what is no folder, or may not be read, as `lost+found`, or a folder of other people's homes."""
    try:
        return os.listdir(folder)
    except (NotADirectoryError, FileNotFoundError, PermissionError):
        return []


def _fits(name: str, part: str) -> bool:
    return fnmatchcase(name.lower(), part.lower())
