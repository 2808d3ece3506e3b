"""Levels of damage, which synthetic sets write into the names of their images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from trainer.evaluation.benchmarks.layout import Witness


def damage(images: Sequence[str]) -> Witness:
    """Rises with damage: the last number of `I01_01_05.png`, `i01_01_5.bmp` or `1600.AWGN.5.png`."""
    return Witness("the level of damage in the names", np.array([_level(image) for image in images]))


def quality(images: Sequence[str]) -> Witness:
    """Rises with quality."""
    return Witness("quality, by the level of damage in the names,", -damage(images).values)


def _level(image: str) -> float:
    last = PurePosixPath(image).stem.replace(".", "_").rpartition("_")[2]
    return float(last) if last.isdecimal() else 0.0
