"""Which published layouts there are, and which of them a path is in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile

from pandas.errors import EmptyDataError, ParserError
from scipy.io.matlab import MatReadError

from trainer.errors import UserError
from trainer.evaluation.benchmarks import (
    agiqa3k,
    csiq,
    deqa,
    kadid10k,
    koniq10k,
    livec,
    pipal,
    plain,
    pyiqa,
    spaq,
    tid2013,
)
from trainer.evaluation.benchmarks.files import find, fits
from trainer.evaluation.benchmarks.layout import Labels, Layout
from trainer.evaluation.benchmarks.tables import has_columns

LAYOUTS: tuple[Layout, ...] = tuple(
    module.LAYOUT for module in (koniq10k, spaq, kadid10k, pipal, livec, agiqa3k, tid2013, csiq, deqa, pyiqa, plain)
)
"""The plain one is last: any CSV that is named fits it."""
BROKEN = (
    BadZipFile, EmptyDataError, JSONDecodeError, LookupError, MatReadError, OSError, ParserError, TypeError,
    UnicodeDecodeError,
)  # fmt: skip
"""What the libraries say of a damaged workbook, MATLAB file, table or list, or of one that may not be read."""
DEPTH = 2
"""Levels of folders that may lie around a benchmark: archives often bring one of their own."""


@dataclass(frozen=True, slots=True)
class Found:
    """A label file, the layout that it belongs to, and the folder of its set."""

    layout: Layout
    file: Path
    root: Path

    def read(self) -> Labels:
        """Raises ValueError where the file is not as published."""
        try:
            return self.layout.read(self.file, self.root)
        except BROKEN as error:
            raise UserError(
                f"{self.file} cannot be read as the label file of {self.layout.title}: {error!r}"
            ) from error


def found(path: Path) -> list[Found]:
    """The benchmark that a label file names, or that of a folder, else those of the folders in it.

    Raises:
        ValueError: there is none, or no such path; says what was looked for.
    """
    if path.is_file():
        here = list(_named(path))[:1]
    elif path.is_dir():
        here = _below(path, DEPTH)
    else:
        raise UserError(f"{path} does not exist: name the folder of a benchmark, or a label file")
    if not here:
        raise UserError(f"no benchmark below {path}. Looked there, and in its folders and theirs, for {_looked_for()}")
    return here


def _named(file: Path) -> Iterator[Found]:
    for layout in LAYOUTS:
        for place in (*layout.places, *layout.named):
            if fits(file.absolute(), place) and _is_its(layout, file):
                yield Found(layout, file, file.absolute().parents[len(PurePosixPath(place).parts) - 1])


def _below(folder: Path, depth: int) -> list[Found]:
    """A folder that is a benchmark is not looked into for others."""
    here = list(_in_folder(folder))
    if here or depth == 0:
        return here
    return [hit for path in find(folder, "*") if path.is_dir() for hit in _below(path, depth - 1)]


def _in_folder(folder: Path) -> Iterator[Found]:
    for layout in LAYOUTS:
        files = next((files for place in layout.places if (files := find(folder, place))), [])
        yield from (Found(layout, file, folder) for file in files if _is_its(layout, file))


def _is_its(layout: Layout, file: Path) -> bool:
    return not layout.columns or has_columns(file, layout.columns)


def _looked_for() -> str:
    published = "; ".join(map(_label_file, (layout for layout in LAYOUTS if layout.places)))
    return f"{published}. Lists of images are named by their file: meta_info_*.csv (pyiqa), *.json, *.csv"


def _label_file(layout: Layout) -> str:
    having = f" with {', '.join(layout.columns)}" if layout.columns else ""
    return f"{' or '.join(layout.places)}{having} ({layout.title})"
