"""Splits of a benchmark: official, or drawn so that each reference is in only one part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit

from trainer.errors import UserError
from trainer.evaluation.benchmarks.benchmark import Labels
from trainer.settings.protocol import Split

TEST, VALIDATION = 0.2, 0.1
"""Shares of drawn splits, as in KonIQ-10k; the rest is `train`."""
NAMES = {
    "train": "train",
    "training": "train",
    "0": "train",
    "val": "validation",
    "validation": "validation",
    "1": "validation",
    "test": "test",
    "2": "test",
}
"""Name in label files -> part; the numbers are pyiqa's."""


def official(column: Sequence[object]) -> list[str]:
    """Translates a label file's names of parts. Raises UserError for an unknown name."""
    names = [str(value).strip().lower().removesuffix(".0") for value in column]
    if unknown := set(names) - set(NAMES):
        raise UserError(f"unknown part {unknown.pop()!r} in the split column; known: {', '.join(NAMES)}")
    return [NAMES[name] for name in names]


def choose(labels: Labels, split: Split, seed: int) -> tuple[NDArray[np.intp], list[str]]:
    """Rows of a split in the file's order, and notes on it.

    Raises:
        UserError: the official split lacks the part, or there are too few references to draw from.
    """
    if split == "auto":
        split = "test" if labels.parts and "test" in labels.parts else "all"
    if split == "all":
        return np.arange(len(labels.images)), []
    if labels.parts:
        rows, how = np.flatnonzero(np.array(labels.parts) == split), "official"
    else:
        rows = draw(labels.references or labels.images, seed)[split]
        how = f"drawn by {'reference' if labels.references else 'image'} with seed {seed}"
    if not len(rows):
        raise UserError(f"{labels.file} has no part {split}; it has {', '.join(sorted(set(labels.parts or [])))}")
    return rows, [f"part {split} ({how}): {len(rows):,} of {len(labels.images):,} images"]


def draw(groups: Sequence[str], seed: int) -> dict[str, NDArray[np.intp]]:
    """Rows of `train`, `validation` and `test` for (N,) groups, each in only one part.

    Raises UserError for fewer than three groups.
    """
    if len(set(groups)) < 3:
        raise UserError(f"train, validation and test cannot be drawn from {len(set(groups))} references; use all")
    known, rows = np.array(groups), np.arange(len(groups))
    rest, test = _cut(known, rows, TEST, seed)
    train, validation = _cut(known, rest, VALIDATION / (1 - TEST), seed)
    return {"train": train, "validation": validation, "test": test}


def _cut(groups: NDArray[np.str_], rows: NDArray[np.intp], share: float, seed: int) -> list[NDArray[np.intp]]:
    cut = GroupShuffleSplit(1, test_size=share, random_state=seed).split(rows, groups=groups[rows])
    return [np.sort(rows[part]) for part in next(cut)]
