"""Shares of pairs, with intervals that know that pairs share images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.proportion import proportion_confint

Array = NDArray[np.float64]
Dyads = NDArray[np.int_]
"""(P, 2) The numbers of each pair's images."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of pairs, with its interval of 95 %."""

    share: float
    low: float
    high: float
    pairs: int


def rate(values: Array, dyads: Dyads) -> Rate | None:
    """The mean of (P,) values from 0 to 1, and Wilson's interval; None without pairs.

    Pairs of one image are not independent: P is divided by the design effect first, as Korn and Graubard (Survey
    Methodology 24, 1998) do for shares in clusters.
    """
    if not len(values):
        return None
    share, effective = float(values.mean()), len(values) / design_effect(values, dyads)
    low, high = proportion_confint(share * effective, effective, method="wilson")
    return Rate(share, float(low), float(high), len(values))


def design_effect(values: Array, dyads: Dyads) -> float:
    """The variance of the mean, as a multiple of that of P independent answers of 0 or 1; 1 if all values are equal.

    The variance is the robust one of dyads: residuals of pairs with a common image may go together in any way (Aronow,
    Samii and Assenova, Political Analysis 23, 2015, with an intercept alone). It is never less than without them.
    """
    mean = values.mean()
    residuals = values - mean
    alone = float((residuals**2).sum())
    of_images = np.bincount(dyads.ravel(), np.repeat(residuals, 2))
    together = float((of_images**2).sum()) - alone  # a pair meets itself in both of its images
    return max(alone, together) / float(len(values) * mean * (1 - mean)) if alone > 0 else 1.0


def numbered(pairs: list[tuple[str, str]]) -> Dyads:
    """The images' names as numbers."""
    numbers: dict[str, Any] = {}
    flat = [numbers.setdefault(image, len(numbers)) for pair in pairs for image in pair]
    return np.array(flat, np.int_).reshape(-1, 2)
