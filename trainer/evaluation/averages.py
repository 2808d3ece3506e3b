"""Averages over benchmarks, as the paper makes them."""

from __future__ import annotations

from collections.abc import Mapping


def weighted_mean(values: Mapping[str, float], counts: Mapping[str, int]) -> float:
    """Mean over benchmarks, weighted by their number of images."""
    return sum(values[name] * counts[name] for name in values) / sum(counts[name] for name in values)


def relative_gain_percent(before: Mapping[str, float], after: Mapping[str, float], counts: Mapping[str, int]) -> float:
    """The paper's headline (arXiv 2509.25787): the sample-weighted mean of the benchmarks' relative gains, percent."""
    gains = {name: (after[name] - before[name]) / before[name] for name in before}
    return 100 * weighted_mean(gains, counts)
