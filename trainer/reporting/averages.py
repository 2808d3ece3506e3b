"""Averages over benchmarks, as the paper makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value", float, NDArray[np.float64])
"""A figure, or a number of draws of it."""


def weighted_mean(values: Mapping[str, Value], counts: Mapping[str, int]) -> Value:
    """Mean over benchmarks, weighted by their number of images."""
    mean: Value = np.average(list(values.values()), axis=0, weights=[counts[name] for name in values])
    return mean


def relative_gain_percent(before: Mapping[str, Value], after: Mapping[str, Value], counts: Mapping[str, int]) -> Value:
    """The paper's headline (arXiv 2509.25787): the sample-weighted mean of the benchmarks' relative gains, percent."""
    gains = {name: (after[name] - before[name]) / before[name] for name in before}
    return 100 * weighted_mean(gains, counts)


def plcc_gain_percent(before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]]) -> float:
    """The same of raw PLCC, from two models' metrics by benchmark as reports hold them."""
    was, now = ({name: metrics["plcc"] for name, metrics in one.items()} for one in (before, after))
    return relative_gain_percent(was, now, {name: int(metrics["n"]) for name, metrics in before.items()})
