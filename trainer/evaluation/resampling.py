"""The bootstrap: what a statistic would have been on other draws of the images, or of the originals they show."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import DegenerateDataWarning, bootstrap

from trainer.errors import UserError

Array = NDArray[np.float64]
Rows = NDArray[np.int64]


class Interval(NamedTuple):
    """A percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13)."""

    low: float
    high: float


def resample(
    statistic: Callable[[Rows], ArrayLike], n: int, references: Sequence[str] | None, *, resamples: int, seed: int
) -> Array:
    """(resamples,) or, of a statistic of S values, (S, resamples): the statistic of rows drawn with replacement.

    Images of one reference resemble each other, so where there are (N,) references they are drawn, each with all of
    its images (the cluster bootstrap: Field & Welsh 2007); drawing images would give intervals that are too narrow.

    Raises:
        ValueError: there is one reference alone, so nothing to draw from.
    """
    if references is not None:
        require_references(references)
    groups = None if references is None else _groups(references)
    drawn_from = np.arange(n if groups is None else len(groups))

    def of_drawn(drawn: Rows) -> ArrayLike:
        return statistic(drawn if groups is None else np.concatenate([groups[number] for number in drawn]))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # of scipy's own interval; see `interval`
        found = bootstrap(
            (drawn_from,), of_drawn, vectorized=False, method="percentile", n_resamples=resamples, batch=100,
            rng=np.random.default_rng(seed),
        )  # fmt: skip
    return np.asarray(found.bootstrap_distribution)


def require_references(references: Sequence[str]) -> None:
    """Raises ValueError where all images are of one reference."""
    if len(set(references)) < 2:
        raise UserError("all images are of one reference: how much chance is in their metrics cannot be told")


def interval(distribution: Array, level: float) -> Interval:
    """The middle `level` of resampled values; those of resamples that have no such value (NaN) are left out."""
    low, high = np.nanquantile(distribution, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _groups(references: Sequence[str]) -> list[Rows]:
    """The rows of each reference."""
    _, numbers = np.unique(np.asarray(references), return_inverse=True)
    return np.split(np.argsort(numbers, kind="stable"), np.cumsum(np.bincount(numbers))[:-1])
