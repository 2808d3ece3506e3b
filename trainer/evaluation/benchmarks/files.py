"""Finds files whatever the case of their names; lists folders and opens nothing."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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
        raise ValueError(f"images must be named relative to {root}, but one is {absolute}")
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
    raise ValueError(f"{file} names images such as {images[0]}, but none of the folders it is in has them below it")


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


def read_csv(file: Path, *columns: str) -> pd.DataFrame:
    """All cells are text. Raises ValueError where columns, or all rows, are lacking."""
    return _checked(pd.read_csv(file, dtype=str, skipinitialspace=True), file, columns)


def has_columns(file: Path, columns: Sequence[str]) -> bool:
    """Whether a file is a CSV with these columns, among others."""
    try:
        return set(columns) <= set(pd.read_csv(file, nrows=0, skipinitialspace=True).columns.str.strip())
    except (OSError, ValueError):  # EmptyDataError, ParserError and UnicodeDecodeError are such
        return False


def read_text(file: Path, separator: str, *columns: str) -> pd.DataFrame:
    """A file without a header. All cells are text."""
    return pd.read_csv(file, sep=separator, names=list(columns), dtype=str, skipinitialspace=True)


def read_excel(file: Path, *columns: str, sheet: str | int = 0) -> pd.DataFrame:
    """A sheet whose header is the first row that has all the columns: titles may stand above it, blanks beside it.

    Raises ValueError where there is no such sheet or row.
    """
    cells = pd.read_excel(file, sheet_name=sheet, header=None, dtype=object)
    headers = [row for row in range(len(cells)) if set(columns) <= {str(cell).strip() for cell in cells.iloc[row]}]
    if not headers:
        raise ValueError(f"{file} needs a row with the columns {', '.join(columns)}")
    table = cells.iloc[headers[0] + 1 :].set_axis([str(cell).strip() for cell in cells.iloc[headers[0]]], axis=1)
    return table.dropna(how="all", subset=list(columns)).reset_index(drop=True)


def numbers(column: pd.Series) -> NDArray[np.float64]:
    """(N,) NaN for what is no number."""
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)


def texts(column: pd.Series) -> list[str]:
    """(N,) Paths are written with slashes."""
    return [str(cell).strip().replace("\\", "/") for cell in column]


def _checked(table: pd.DataFrame, file: Path, columns: Sequence[str]) -> pd.DataFrame:
    table.columns = table.columns.str.strip()
    if lacking := set(columns) - set(table.columns):
        raise ValueError(
            f"{file} lacks the columns {', '.join(sorted(lacking))}; it has {', '.join(map(str, table.columns))}"
        )
    if table.empty:
        raise ValueError(f"{file} has no row")
    return table
