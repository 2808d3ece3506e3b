"""Reads benchmarks as they are distributed: name the folder. Nothing outside this package opens labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from json import JSONDecodeError
from pathlib import Path
from zipfile import BadZipFile

from pandas.errors import EmptyDataError, ParserError

from trainer.errors import UserError
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.benchmarks.checks import check
from trainer.evaluation.benchmarks.files import locate
from trainer.evaluation.benchmarks.layout import Labels
from trainer.evaluation.benchmarks.layouts import Found, found
from trainer.evaluation.benchmarks.splits import choose
from trainer.evaluation.protocol import Split

MOST_MISSING = 0.05
"""A benchmark that lacks more of its images than this share is another benchmark."""
_BROKEN = (OSError, UnicodeDecodeError, JSONDecodeError, BadZipFile, ParserError, EmptyDataError)
"""Raised for a label file that is not readable or not in its format."""
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
        raise UserError(f"{path} holds several benchmarks, name one: {', '.join(str(one.file) for one in here)}")
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
        raise UserError(f"several benchmarks have one name ({files}): their results could not be told apart; name one")
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
    return Benchmark(
        name=labels.name,
        root=labels.root,
        ids=[id for _, id in kept],
        mos=labels.mos[[row for row, _ in kept]],
        references=[labels.references[row] for row, _ in kept] if labels.references else None,
        notes=[*labels.notes, *_about_labels(labels), *about_split, *_about_missing(missing)],
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
            f"{labels.file} names {len(missing):,} images that do not exist, of {expected:,}: {first(missing)}. "
            f"Looked for them in {places}"
        )


def _refuse_if_labelled_twice(labels: Labels, ids: Sequence[str | None]) -> None:
    """Two names of one file, such as a.png and images/a.png."""
    again, times = Counter(id for id in ids if id is not None).most_common(1)[0]
    if times > 1:
        raise UserError(f"{labels.file} names {labels.root / again} {times} times: one label an image is expected")


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
