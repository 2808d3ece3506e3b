"""Bradley-Terry strengths from pairwise preferences, with their standard errors.

The model (Bradley and Terry, 1952; order effect: Davidson and Beaver, 1977): the logit of preferring the image shown
first is the difference of the two strengths, plus a bias towards the first position. It is fitted as a binomial
regression, or a quasi-binomial one for preferences that are probabilities instead of votes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

DRAWS = {"votes": 0.25, "probabilities": 0.01}
"""Weight of a virtual draw of every image against an average one, and of the two positions, as a share of an order's.

Without it an image that always won would be infinitely strong, and groups that were never compared would have no
common scale. Votes get more: pairs chosen by earlier votes exaggerate differences (Bramley, 2015); draws compensate.
"""
_TIE_DIGITS = 6

Floats = NDArray[np.float64]
Kind = Literal["votes", "probabilities"]


@dataclass(frozen=True, slots=True)
class Preference:
    """One order of presentation: the share of `weight` answers that prefers `first`, which is shown first."""

    first: int
    second: int
    share: float
    weight: float


@dataclass(frozen=True, slots=True)
class Strengths:
    """Strengths in logits with mean 0, and their covariance for a dispersion of 1.

    `dispersion` scales the covariance; None if there are too few preferences to estimate it.
    """

    values: Floats
    covariance: Floats
    dispersion: float | None

    def standard_errors(self) -> Floats | None:
        """The standard error of every strength, or None without a dispersion."""
        return None if self.dispersion is None else np.sqrt(self.dispersion * np.diag(self.covariance).clip(min=0.0))

    def ranks(self, among: Sequence[int]) -> list[int]:
        """Ranks of some images among themselves, from 1. Equally strong images share the better rank."""
        rounded = np.round(self.values[list(among)], _TIE_DIGITS)
        return [int(np.sum(rounded > value)) + 1 for value in rounded]


def fit(images: int, preferences: Sequence[Preference], kind: Kind) -> Strengths:
    """The strengths of `images` images.

    Votes are sampled, so their dispersion is at least 1. Exact probabilities have no sampling noise, only deviations
    from the model.
    """
    model, family = load()
    design, shares, weights = _regression(images, preferences, DRAWS[kind])
    result = model(shares, design, family=family(), var_weights=weights).fit(scale=1.0)
    centred = np.eye(images, images + 1) - np.append(np.full(images, 1 / images), 0)
    return Strengths(
        values=centred @ result.params,
        covariance=centred @ result.normalized_cov_params @ centred.T,
        dispersion=_dispersion(result.resid_pearson, preferences, images, 1.0 if kind == "votes" else 0.0),
    )


@cache
def load() -> tuple[Any, Any]:
    """The library's regression and its family. The first call takes seconds to import them."""
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_linear_model import GLM
    from statsmodels.tools.sm_exceptions import PerfectSeparationWarning
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, user_api="blas")  # for such small matrices threads cost more than they save
    warnings.simplefilter("ignore", PerfectSeparationWarning)  # the draws keep every strength finite
    return GLM, Binomial


def _regression(images: int, preferences: Sequence[Preference], draw: float) -> tuple[Floats, Floats, Floats]:
    """A column for each image and one for the position; a row for each preference and a draw for each column."""
    columns, rows = images + 1, len(preferences)
    design = np.zeros((rows + columns, columns))
    for row, preference in enumerate(preferences):
        design[row, [preference.first, preference.second, images]] = 1, -1, 1
    design[rows:] = np.eye(columns)
    usual = np.mean([preference.weight for preference in preferences]) if preferences else 1.0
    shares = np.array([preference.share for preference in preferences] + [0.5] * columns)
    weights = np.array([preference.weight for preference in preferences] + [draw * usual] * columns)
    return design, shares, weights


def _dispersion(residuals: Floats, preferences: Sequence[Preference], images: int, least: float) -> float | None:
    """Pearson's estimate of the dispersion, at least `least`.

    Both orders of a pair deviate from the model alike, so residuals are summed within a pair.
    """
    sums: dict[tuple[int, int], list[float]] = {}
    for residual, preference in zip(residuals, preferences, strict=False):
        pair = preference.first, preference.second
        sums.setdefault(min(pair, pair[::-1]), []).append(residual if pair < pair[::-1] else -residual)
    free = len(sums) - (images - 1)
    if free <= 0:
        return least or None
    return max(sum(sum(found) ** 2 / len(found) for found in sums.values()) / free, least)
