"""Which published layouts there are, and which of them a path is in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile

from pandas.errors import EmptyDataError, ParserError
from scipy.io.matlab import MatReadError

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
from trainer.evaluation.benchmarks.benchmark import Benchmark, Labels, Layout
from trainer.evaluation.benchmarks.checks import check
from trainer.evaluation.benchmarks.files import find, fits, has_columns, locate
from trainer.evaluation.benchmarks.splits import choose
from trainer.settings.protocol import Split

LAYOUTS: tuple[Layout, ...] = tuple(
    module.LAYOUT for module in (koniq10k, spaq, kadid10k, pipal, livec, agiqa3k, tid2013, csiq, deqa, pyiqa, plain)
)
"""The plain one is last: any CSV that is named fits it."""
BROKEN = (
    BadZipFile,
    EmptyDataError,
    JSONDecodeError,
    LookupError,
    MatReadError,
    OSError,
    ParserError,
    TypeError,
    UnicodeDecodeError,
)
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
            raise ValueError(
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
        raise ValueError(f"{path} does not exist: name the folder of a benchmark, or a label file")
    if not here:
        raise ValueError(f"no benchmark below {path}. Looked there, and in its folders and theirs, for {_looked_for()}")
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


MOST_MISSING = 0.05
"""A benchmark that lacks more of its images than this share is another benchmark."""
SHOWN = 5
"""Missing images that are named."""


def load(path: Path, split: Split = "auto", *, seed: int = 0) -> Benchmark:
    """Reads one benchmark: its folder, or a label file in it.

    Splits without an official part are drawn by `seed`, by reference where there are references.

    Raises:
        ValueError: no known layout, or several; labels that are not as published; too many images missing.
    """
    here = found(path)
    if len(here) > 1:
        raise ValueError(f"{path} holds several benchmarks, name one: {', '.join(str(one.file) for one in here)}")
    return _benchmark(here[0], split, seed)


def load_all(paths: Path | Sequence[Path], split: Split = "auto", *, seed: int = 0) -> list[Benchmark]:
    """Every benchmark named, and every one below a folder that is none itself, by folder.

    Raises:
        ValueError: as `load` does, or two of them have one name.
    """
    everything = [one for path in ([paths] if isinstance(paths, Path) else paths) for one in found(path)]
    benchmarks = [_benchmark(one, split, seed) for one in everything]
    times = Counter(benchmark.name for benchmark in benchmarks)
    if alike := [(one.file, of) for one, of in zip(everything, benchmarks, strict=True) if times[of.name] > 1]:
        files = ", ".join(f"{of.name} by {file}" for file, of in alike)
        raise ValueError(f"several benchmarks have one name ({files}): their results could not be told apart; name one")
    return benchmarks


def _benchmark(one: Found, split: Split, seed: int) -> Benchmark:
    labels = one.read()
    check(labels)
    rows, about_split = choose(labels, split, seed)
    ids = locate(labels.root, labels.folders, [labels.images[row] for row in rows])
    missing = [labels.images[row] for row, id in zip(rows, ids, strict=True) if id is None]
    _refuse_if_too_many(labels, missing, len(rows))
    _refuse_if_labelled_twice(labels, ids)
    kept = [(row, id) for row, id in zip(rows, ids, strict=True) if id is not None]
    return Benchmark(
        name=labels.name,
        root=labels.root,
        ids=[id for _, id in kept],
        mos=labels.mos[[row for row, _ in kept]],
        references=[labels.references[row] for row, _ in kept] if labels.references else None,
        notes=[*labels.notes, *_about_labels(labels), *about_split, *_about_missing(missing)],
        missing=missing,
    )


def _refuse_if_too_many(labels: Labels, missing: list[str], expected: int) -> None:
    if len(missing) > MOST_MISSING * expected:
        places = " or ".join(str(labels.root / folder) for folder in labels.folders)
        raise ValueError(
            f"{labels.file} names {len(missing):,} images that do not exist, of {expected:,}: {first(missing)}. "
            f"Looked for them in {places}"
        )


def _refuse_if_labelled_twice(labels: Labels, ids: Sequence[str | None]) -> None:
    """Two names of one file, such as a.png and images/a.png."""
    again, times = Counter(id for id in ids if id is not None).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{labels.file} names {labels.root / again} {times} times: one label an image is expected")


def _about_labels(labels: Labels) -> list[str]:
    notes, scale = [], labels.scale
    if scale and scale.lower_is_better:
        notes.append(f"labels turned over, higher is better: {scale.low + scale.high:g} - label")
    if scale and scale.count and scale.count != len(labels.images):
        notes.append(f"{len(labels.images):,} labels, {scale.count:,} were published")
    return notes


def _about_missing(missing: list[str]) -> list[str]:
    return [f"{len(missing):,} images missing: {first(missing)}"] if missing else []


def first(names: list[str]) -> str:
    """The first of them, for a sentence."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
