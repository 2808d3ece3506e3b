"""Finds and reads benchmarks in their published layouts. Only this package opens labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile

from pandas.errors import EmptyDataError, ParserError
from scipy.io.matlab import MatReadError

from service.files import printable
from service.folders import fits
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
from trainer.evaluation.benchmarks.benchmark import Benchmark, Labels, Layout
from trainer.evaluation.benchmarks.checks import check
from trainer.evaluation.benchmarks.files import find, has_columns, locate
from trainer.evaluation.benchmarks.splits import choose
from trainer.settings.protocol import Split

LAYOUTS: tuple[Layout, ...] = tuple(
    module.LAYOUT for module in (koniq10k, spaq, kadid10k, pipal, livec, agiqa3k, tid2013, csiq, deqa, pyiqa, plain)
)
"""The plain layout is last, as it matches any CSV that is named."""
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
"""Errors of the libraries for a damaged or unreadable workbook, MATLAB file, table or list."""
DEPTH = 2
"""Levels of folders searched for a benchmark: archives often add one of their own."""
MOST_MISSING = 0.05
"""Largest share of missing images that is accepted."""
_BROKEN = (OSError, UnicodeDecodeError, JSONDecodeError, BadZipFile, ParserError, EmptyDataError)
"""Raised for a label file that is not readable or not in its format."""
SHOWN = 5
"""Number of missing images named in a message."""


@dataclass(frozen=True, slots=True)
class Found:
    """A label file with its layout and the folder of its set."""

    layout: Layout
    file: Path
    root: Path

    def read(self) -> Labels:
        """Reads the labels. Raises UserError if the file differs from the published form."""
        try:
            return self.layout.read(self.file, self.root)
        except BROKEN as error:
            raise UserError(
                f"{self.file} cannot be read as the label file of {self.layout.title}: {error!r}"
            ) from error


def found(path: Path) -> list[Found]:
    """The benchmark of a label file or folder, else those of the folders below it.

    Raises:
        UserError: none found, or no such path; the message lists the known layouts.
    """
    if path.is_file():
        here = list(_named(path))[:1]
    elif path.is_dir():
        here = _below(path, DEPTH)
    else:
        raise UserError(f"{path} does not exist: give the folder of a benchmark or a label file")
    if not here:
        raise UserError(f"no benchmark in {path} or up to two levels below it. Known layouts: {_known_layouts()}")
    return here


def _named(file: Path) -> Iterator[Found]:
    for layout in LAYOUTS:
        for place in (*layout.places, *layout.named):
            if fits(file.absolute().parts, ("**", *PurePosixPath(place).parts)) and _is_its(layout, file):
                yield Found(layout, file, file.absolute().parents[len(PurePosixPath(place).parts) - 1])


def _below(folder: Path, depth: int) -> list[Found]:
    """Benchmarks of a folder. One that is a benchmark itself is not searched for others."""
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


def _known_layouts() -> str:
    published = "; ".join(map(_label_file, (layout for layout in LAYOUTS if layout.places)))
    return f"{published}. Name lists by their file: meta_info_*.csv (pyiqa), *.json, *.csv"


def _label_file(layout: Layout) -> str:
    having = f" with {', '.join(layout.columns)}" if layout.columns else ""
    return f"{' or '.join(layout.places)}{having} ({layout.title})"


def load(path: Path, split: Split = "auto", *, seed: int = 0) -> Benchmark:
    """Reads one benchmark from its folder or a label file.

    Without an official split, parts are drawn with `seed`, by reference where there are references.

    Raises:
        UserError: no known layout or several, labels that differ from the published ones, too many missing images.
    """
    here = found(path)
    if len(here) > 1:
        raise UserError(f"{path} holds several benchmarks; give one of {', '.join(str(one.file) for one in here)}")
    return _benchmark(here[0], split, seed)


def load_all(paths: Path | Sequence[Path], split: Split = "auto", *, seed: int = 0) -> list[Benchmark]:
    """Reads every benchmark named, and every one below a folder that is not a benchmark itself, in order of folders.

    Raises:
        UserError: as `load`, or two benchmarks have the same name.
    """
    everything = [one for path in ([paths] if isinstance(paths, Path) else paths) for one in found(path)]
    benchmarks = [_benchmark(one, split, seed) for one in everything]
    times = Counter(benchmark.name for benchmark in benchmarks)
    if alike := [(one.file, of) for one, of in zip(everything, benchmarks, strict=True) if times[of.name] > 1]:
        files = ", ".join(f"{of.name} by {file}" for file, of in alike)
        raise UserError(f"several benchmarks have the same name ({files}): give only one of them")
    return benchmarks


def _benchmark(one: Found, split: Split, seed: int) -> Benchmark:
    labels = _read(one)
    check(labels)
    rows, about_split = choose(labels, split, seed)
    ids = locate(labels.root, labels.folders, [labels.images[row] for row in rows])
    missing = [labels.images[row] for row, id in zip(rows, ids, strict=True) if id is None]
    _refuse_if_too_many(labels, missing, len(rows))
    _refuse_if_labelled_twice(labels, ids)
    kept = [(row, id) for row, id in zip(rows, ids, strict=True) if id is not None]
    about_missing = [f"{len(missing):,} images missing: {first(missing)}"] if missing else []
    return Benchmark(
        name=printable(labels.name),
        root=labels.root,
        ids=[id for _, id in kept],
        mos=labels.mos[[row for row, _ in kept]],
        references=[labels.references[row] for row, _ in kept] if labels.references else None,
        notes=[*labels.notes, *_about_labels(labels), *about_split, *about_missing],
        missing=missing,
    )


def _read(one: Found) -> Labels:
    try:
        return one.read()
    except _BROKEN as error:
        raise UserError(f"the labels {one.file} cannot be read ({error}); put an intact file there") from error


def _refuse_if_too_many(labels: Labels, missing: list[str], expected: int) -> None:
    if len(missing) > MOST_MISSING * expected:
        places = " or ".join(str(labels.root / folder) for folder in labels.folders)
        raise UserError(
            f"{labels.file}: {len(missing):,} of {expected:,} images are missing: {first(missing)}. Searched {places}"
        )


def _refuse_if_labelled_twice(labels: Labels, ids: Sequence[str | None]) -> None:
    """Refuses two names of one file, such as a.png and images/a.png."""
    again, times = Counter(id for id in ids if id is not None).most_common(1)[0]
    if times > 1:
        raise UserError(f"{labels.file} lists {labels.root / again} {times} times; expected one label per image")


def _about_labels(labels: Labels) -> list[str]:
    notes, scale = [], labels.scale
    if scale and scale.lower_is_better:
        notes.append(f"labels inverted, higher is better: {scale.low + scale.high:g} - label")
    if scale and scale.count and scale.count != len(labels.images):
        notes.append(f"{len(labels.images):,} labels, {scale.count:,} were published")
    return notes


def first(names: list[str]) -> str:
    """The first few names, joined by commas."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
