"""Refuses labels that are not what was published: broken, named twice, of another scale, or turned over."""

from __future__ import annotations

from collections import Counter

import numpy as np
from scipy.stats import spearmanr

from trainer.errors import UserError
from trainer.evaluation.benchmarks.layout import Labels, Scale

ROUNDING = 0.02
"""Published extremes are rounded: labels may leave their range by this share of it."""
LEAST_SPAN = 0.25
"""Labels that fill less of their published range than this have been rescaled."""
ENOUGH = 20
"""Fewer labels prove neither span nor direction."""


def check(labels: Labels) -> None:
    """Raises ValueError, with what was found and what was expected."""
    if not labels.images:
        raise UserError(f"{labels.file} has no row")
    _check_finite(labels)
    _check_unique(labels)
    if labels.scale:
        _check_range(labels, labels.scale)
    _check_direction(labels)


def _check_finite(labels: Labels) -> None:
    broken = np.flatnonzero(~np.isfinite(labels.values))
    if len(broken):
        raise UserError(f"{labels.file}: {len(broken)} labels are no finite numbers, first {labels.images[broken[0]]}")


def _check_unique(labels: Labels) -> None:
    name, times = Counter(image.lower() for image in labels.images).most_common(1)[0]
    if times > 1:
        raise UserError(f"{labels.file} names {name} {times} times: one label an image is expected")


def _check_range(labels: Labels, scale: Scale) -> None:
    low, high, width = labels.values.min(), labels.values.max(), scale.high - scale.low
    outside = low < scale.low - ROUNDING * width or high > scale.high + ROUNDING * width
    narrow = len(labels.values) >= ENOUGH and high - low < LEAST_SPAN * width
    if outside or narrow:
        raise UserError(
            f"{labels.file}: the labels run from {low:g} to {high:g}, but {labels.name}'s were published from "
            f"{scale.low:g} to {scale.high:g}. Is this another column, or were they rescaled or turned over? Use the "
            "file as distributed"
        )


def _check_direction(labels: Labels) -> None:
    if labels.witness and direction(labels) < 0:
        rises = "damage" if labels.scale and labels.scale.lower_is_better else "quality"
        raise UserError(
            f"{labels.file}: the labels fall where {labels.witness.name} rises, but {labels.name}'s were published "
            f"rising with {rises}. They have been turned over: use the file as distributed"
        )


def direction(labels: Labels) -> float:
    """The sign of the rank correlation of the labels with their witness; 0 where it proves nothing."""
    witness = labels.witness
    if not witness or len(labels.values) < ENOUGH or np.ptp(witness.values) == 0 or np.ptp(labels.values) == 0:
        return 0.0
    return float(np.sign(spearmanr(labels.values, witness.values).statistic))
