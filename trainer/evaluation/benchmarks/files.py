"""Finds files case-insensitively, and reads the tables in label files."""

from __future__ import annotations

import glob
import io
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath
from unicodedata import normalize

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from service.errors import UserError as NotText
from service.files import read_text
from trainer.errors import UserError

FIRST = 20
"""Number of images looked for to recognise the folder of a list, as single ones may be missing."""


def find(root: Path, pattern: str) -> list[Path]:
    """Paths below a folder that match a pattern such as `dst_imgs/*`, case-insensitively, in order of their names."""
    found = [root]
    for part in PurePosixPath(pattern).parts:
        found = [folder / name for folder in found for name in sorted(_names(folder)) if _fits(name, part)]
    return found


def locate(root: Path, folders: Sequence[str], names: Sequence[str]) -> list[str | None]:
    """Path of each image relative to `root`; None if it is missing. Lists every folder once.

    Raises:
        UserError: a name is an absolute path.
    """
    if absolute := next((name for name in names if PurePosixPath(name).is_absolute()), None):
        raise UserError(f"image names must be relative to {root}, but {absolute} is absolute")
    candidates = [folder for pattern in folders for folder in find(root, pattern) if folder.is_dir()]
    listed = cache(_files)

    def one(name: str) -> str | None:
        path = PurePosixPath(name)
        names = (path.name, *_loosely(path.name))
        hits = (listed(folder, path.parent).get(name) for folder in candidates for name in names)
        found = next((hit for hit in hits if hit), None)
        return found.relative_to(root).as_posix() if found else None

    return [one(name) for name in names]


def ancestors(path: Path) -> Iterator[Path]:
    """Parent folders, the innermost first."""
    return iter(path.absolute().parents)


def ancestor_with(file: Path, images: Sequence[str]) -> Path:
    """The innermost parent folder that holds one of the first images. Raises UserError if there is none."""
    for root in ancestors(file):
        if any(locate(root, ["."], images[:FIRST])):
            return root
    raise UserError(f"{file} lists images such as {images[0]}, which are not below any of its parent folders")


def _files(folder: Path, parent: PurePosixPath) -> dict[str, Path]:
    """File name, or else the name in one Unicode form, or else that in lower case -> path."""
    files = [path / name for path in find(folder, glob.escape(str(parent))) for name in _names(path)][::-1]
    composed, lower = ({_loosely(path.name)[level]: path for path in files} for level in (0, 1))
    return lower | composed | {path.name: path for path in files}


def _loosely(name: str) -> tuple[str, str]:
    """The name in one Unicode form, and that in lower case."""
    composed = normalize("NFC", name)
    return composed, composed.lower()


def _names(folder: Path) -> list[str]:
    """Names in a folder; none if it is not a folder or not readable, such as `lost+found`."""
    try:
        return os.listdir(folder)
    except (NotADirectoryError, FileNotFoundError, PermissionError):
        return []


def _fits(name: str, part: str) -> bool:
    return fnmatchcase(_loosely(name)[1], _loosely(part)[1])


def read_csv(file: Path, *columns: str) -> pd.DataFrame:
    """Reads a table separated by commas, semicolons or tabs, with all cells as text.

    Raises UserError if columns or all rows are missing, or for an encoding other than Unicode's.
    """
    return _checked(_table(file), file, columns)


def has_columns(file: Path, columns: Sequence[str]) -> bool:
    """True if a file is a CSV that has these columns."""
    try:
        return set(columns) <= set(_table(file).columns.str.strip())
    except (OSError, ValueError, NotText):  # among them EmptyDataError and ParserError
        return False


def _table(file: Path) -> pd.DataFrame:
    head, _, rows = (text := read_text(file)).partition("\n")
    if head.lower().startswith("sep="):  # Excel's own first line
        head, text = head[4:], rows
    separator = max(",;\t", key=head.count)
    return pd.read_csv(io.StringIO(text), sep=separator, dtype=str, skipinitialspace=True)


def read_columns(file: Path, separator: str, *columns: str) -> pd.DataFrame:
    """Reads a file without a header, with all cells as text."""
    return pd.read_csv(
        io.StringIO(read_text(file)), sep=separator, names=list(columns), dtype=str, skipinitialspace=True
    )


def read_excel(file: Path, *columns: str, sheet: str | int = 0) -> pd.DataFrame:
    """Reads a sheet. Its header is the first row with all the columns; titles above and blanks beside are skipped.

    Raises UserError if there is no such sheet or row.
    """
    cells = pd.read_excel(file, sheet_name=sheet, header=None, dtype=object)
    headers = [row for row in range(len(cells)) if set(columns) <= {str(cell).strip() for cell in cells.iloc[row]}]
    if not headers:
        raise UserError(f"{file} needs a row with the columns {', '.join(columns)}")
    table = cells.iloc[headers[0] + 1 :].set_axis([str(cell).strip() for cell in cells.iloc[headers[0]]], axis=1)
    return table.dropna(how="all", subset=list(columns)).reset_index(drop=True)


def numbers(column: pd.Series) -> NDArray[np.float64]:
    """(N,) numbers; NaN for any other text. In a column without points, commas are decimal marks."""
    cells = column.astype(str)
    if not cells.str.contains(".", regex=False).any():
        cells = cells.str.replace(",", ".", regex=False)
    return pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)


def texts(column: pd.Series) -> list[str]:
    """(N,) stripped texts, with slashes in paths."""
    return [str(cell).strip().replace("\\", "/") for cell in column]


def _checked(table: pd.DataFrame, file: Path, columns: Sequence[str]) -> pd.DataFrame:
    table.columns = table.columns.str.strip()
    if lacking := set(columns) - set(table.columns):
        raise UserError(
            f"{file} lacks columns {', '.join(sorted(lacking))}; it has {', '.join(map(str, table.columns))}"
        )
    if table.empty:
        raise UserError(f"{file} has no rows")
    return table
