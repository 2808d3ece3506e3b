"""Refuses labels that differ from the published ones: not finite, duplicate, on another scale, or inverted."""

from __future__ import annotations

from collections import Counter

import numpy as np
from scipy.stats import spearmanr

from trainer.errors import UserError
from trainer.evaluation.benchmarks.benchmark import Labels, Scale

ROUNDING = 0.02
"""Tolerance, as a share of the range, since published extremes are rounded."""
LEAST_SPAN = 0.25
"""Labels that cover less than this share of their published range have been rescaled."""
ENOUGH = 20
"""Fewer labels are not enough to check range and direction."""


def check(labels: Labels) -> None:
    """Raises UserError, with the expected and actual values."""
    if not labels.images:
        raise UserError(f"{labels.file} has no rows")
    _check_finite(labels)
    _check_unique(labels)
    if labels.scale:
        _check_range(labels, labels.scale)
    _check_direction(labels)


def _check_finite(labels: Labels) -> None:
    broken = np.flatnonzero(~np.isfinite(labels.values))
    if len(broken):
        raise UserError(
            f"{labels.file}: {len(broken)} labels are not finite numbers, the first of {labels.images[broken[0]]}"
        )


def _check_unique(labels: Labels) -> None:
    name, times = Counter(labels.images).most_common(1)[0]
    if times > 1:
        raise UserError(f"{labels.file} lists {name} {times} times; expected one label per image")


def _check_range(labels: Labels, scale: Scale) -> None:
    low, high, width = labels.values.min(), labels.values.max(), scale.high - scale.low
    outside = low < scale.low - ROUNDING * width or high > scale.high + ROUNDING * width
    narrow = len(labels.values) >= ENOUGH and high - low < LEAST_SPAN * width
    if outside or narrow:
        raise UserError(
            f"{labels.file}: the labels range from {low:g} to {high:g}, but the published labels of {labels.name} "
            f"range from {scale.low:g} to {scale.high:g}: this is another column, or they were rescaled or inverted. "
            "Use the original file"
        )


def _check_direction(labels: Labels) -> None:
    if labels.witness and direction(labels) < 0:
        rises = "damage" if labels.scale and labels.scale.lower_is_better else "quality"
        raise UserError(
            f"{labels.file}: the labels fall as {labels.witness.name} rises, but the published labels of "
            f"{labels.name} rise with {rises}: they were inverted. Use the original file"
        )


def direction(labels: Labels) -> float:
    """Sign of the rank correlation of the labels with their witness; 0 if undetermined."""
    witness = labels.witness
    if not witness or len(labels.values) < ENOUGH or np.ptp(witness.values) == 0 or np.ptp(labels.values) == 0:
        return 0.0
    return float(np.sign(spearmanr(labels.values, witness.values).statistic))
