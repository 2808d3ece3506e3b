"""What a benchmark is: images and their mean opinion scores (MOS)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Benchmark:
    """N images and what people thought of them, in the label file's order."""

    name: str
    """`koniq10k`, `spaq`, `kadid10k`, `pipal`, `livec`, `agiqa3k`, `tid2013`, `csiq`, or the folder's or file's."""
    root: Path
    ids: list[str]
    """(N,) posix paths relative to `root`; the key of an image in files of predictions."""
    mos: NDArray[np.float64]
    """(N,) Higher is better, whatever the label file's direction."""
    references: list[str] | None = None
    """(N,) The undistorted original of each, where the set is made from originals."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the results must know: images that are missing, labels that were turned, the split."""
    missing: list[str] = field(default_factory=list)
    """Images that have a label but no file, as the label file names them. They are in none of the above."""

    @property
    def images(self) -> list[Path]:
        """(N,) Where the files are."""
        return [self.root / id for id in self.ids]


@dataclass(frozen=True, slots=True)
class Scale:
    """The labels as they were published: their extremes, and how many there are."""

    low: float
    high: float
    count: int | None = None
    lower_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Witness:
    """Something else that is known of the images and must rise with their labels: it tells their direction."""

    name: str
    values: NDArray[np.float64]
    """(N,)"""


@dataclass(frozen=True, slots=True)
class Labels:
    """A whole label file, unchecked."""

    name: str
    file: Path
    root: Path
    folders: tuple[str, ...]
    """Where images may lie, relative to `root`: patterns, tried in this order."""
    images: list[str]
    """(N,) As the file names them."""
    values: NDArray[np.float64]
    """(N,) As the file has them."""
    scale: Scale | None = None
    witness: Witness | None = None
    references: list[str] | None = None
    """(N,)"""
    parts: list[str] | None = None
    """(N,) The official split: `train`, `validation` or `test`."""
    notes: list[str] = field(default_factory=list)

    @property
    def mos(self) -> NDArray[np.float64]:
        """(N,) Higher is better: values that rise with damage are turned over within their published range."""
        scale = self.scale
        return scale.low + scale.high - self.values if scale and scale.lower_is_better else self.values


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which labelled images are distributed."""

    title: str
    places: tuple[str, ...]
    """Where the label file lies in the set's folder, the preferred one first; in any case of letters."""
    read: Callable[[Path, Path], Labels]
    """Reads (label file, folder of the set). Raises ValueError where the file is not as published."""
    columns: tuple[str, ...] = ()
    """What the label file's header must have to be taken for it, where its name is a common one."""
    named: tuple[str, ...] = ()
    """Label files that are read only where the file itself is named, since their names say too little."""


def damage_levels(images: Sequence[str]) -> Witness:
    """Rises with damage: the last number of `I01_01_05.png`, `i01_01_5.bmp` or `1600.AWGN.5.png`."""
    return Witness("the level of damage in the names", np.array([_level(image) for image in images]))


def quality_levels(images: Sequence[str]) -> Witness:
    """Rises with quality."""
    return Witness("quality, by the level of damage in the names,", -damage_levels(images).values)


def _level(image: str) -> float:
    last = PurePosixPath(image).stem.replace(".", "_").rpartition("_")[2]
    return float(last) if last.isdecimal() else 0.0
