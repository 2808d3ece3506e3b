"""Reads a label file's table, with its columns checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainer.errors import UserError


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
        raise UserError(f"{file} needs a row with the columns {', '.join(columns)}")
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
        raise UserError(
            f"{file} lacks the columns {', '.join(sorted(lacking))}; it has {', '.join(map(str, table.columns))}"
        )
    if table.empty:
        raise UserError(f"{file} has no row")
    return table
