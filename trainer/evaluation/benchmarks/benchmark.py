"""Benchmarks, i.e. images with mean opinion scores (MOS), and the published layouts that they are read from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Benchmark:
    """N images with their mean opinion scores, in the label file's order."""

    name: str
    """`koniq10k`, `spaq`, `kadid10k`, `pipal`, `livec`, `agiqa3k`, `tid2013`, `csiq`, or the folder or file name."""
    root: Path
    ids: list[str]
    """(N,) posix paths relative to `root`; the key of an image in files of predictions."""
    mos: NDArray[np.float64]
    """(N,) Higher is better, whatever the direction in the label file."""
    references: list[str] | None = None
    """(N,) The undistorted original of each, where the set is made from originals."""
    notes: list[str] = field(default_factory=list)
    """Remarks for readers of the results: missing images, inverted labels, the split."""
    missing: list[str] = field(default_factory=list)
    """Names of images with a label but no file. They are in none of the above."""

    @property
    def images(self) -> list[Path]:
        """(N,) Paths of the images."""
        return [self.root / id for id in self.ids]


@dataclass(frozen=True, slots=True)
class Scale:
    """Published labels: their extremes, number and direction."""

    low: float
    high: float
    count: int | None = None
    lower_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Witness:
    """Another property of the images that must correlate positively with the labels; it reveals inverted labels."""

    name: str
    values: NDArray[np.float64]
    """(N,)"""


@dataclass(frozen=True, slots=True)
class Labels:
    """Contents of a label file, unchecked."""

    name: str
    file: Path
    root: Path
    folders: tuple[str, ...]
    """Patterns of the folders that may hold the images, relative to `root`, in order of preference."""
    images: list[str]
    """(N,) Names in the file."""
    values: NDArray[np.float64]
    """(N,) Values in the file."""
    scale: Scale | None = None
    witness: Witness | None = None
    references: list[str] | None = None
    """(N,)"""
    parts: list[str] | None = None
    """(N,) The official split: `train`, `validation` or `test`."""
    notes: list[str] = field(default_factory=list)

    @property
    def mos(self) -> NDArray[np.float64]:
        """(N,) Higher is better: values that rise with damage are mirrored within their published range."""
        scale = self.scale
        return scale.low + scale.high - self.values if scale and scale.lower_is_better else self.values


@dataclass(frozen=True, slots=True)
class Layout:
    """A published way of distributing labelled images."""

    title: str
    places: tuple[str, ...]
    """Paths of the label file in the set's folder, in order of preference; case-insensitive."""
    read: Callable[[Path, Path], Labels]
    """Reads (label file, folder of the set). Raises ValueError if the file differs from the published form."""
    columns: tuple[str, ...] = ()
    """Columns that identify the label file, where its name is a common one."""
    named: tuple[str, ...] = ()
    """Patterns of label files that are read only if named directly, since their names are ambiguous."""


def damage_levels(images: Sequence[str]) -> Witness:
    """Damage levels in names: the last number of `I01_01_05.png`, `i01_01_5.bmp` or `1600.AWGN.5.png`."""
    return Witness("the level of damage in the names", np.array([_level(image) for image in images]))


def quality_levels(images: Sequence[str]) -> Witness:
    """The negated damage level, which rises with quality."""
    return Witness("quality, by the level of damage in the names,", -damage_levels(images).values)


def _level(image: str) -> float:
    last = PurePosixPath(image).stem.replace(".", "_").rpartition("_")[2]
    return float(last) if last.isdecimal() else 0.0
