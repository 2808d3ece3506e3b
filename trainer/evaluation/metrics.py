"""How well predicted scores agree with mean opinion scores: PLCC, fitted PLCC, SRCC, weighted means, gains."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.stats import pearsonr, spearmanr

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Metrics:
    """Agreement of predictions with the truth on one benchmark."""

    plcc: float
    """Pearson correlation of the raw predictions (pyiqa's convention)."""
    plcc_fitted: float
    """Pearson correlation after the 4-parameter logistic fit (DeQA-Score's convention)."""
    srcc: float
    """Spearman rank correlation of the raw predictions; ties get average ranks."""
    n: int
    """Images with a readable prediction."""


def measure(predicted: Array, truth: Array) -> Metrics:
    """All metrics of (N,) predictions; NaN predictions (unreadable answers) are left out and `n` tells.

    Raises:
        ValueError: fewer than three readable predictions, or constant ones: there is no correlation.
    """
    readable = np.isfinite(predicted)
    predicted, truth = predicted[readable], truth[readable]
    if len(predicted) < 3 or np.ptp(predicted) == 0:
        raise ValueError(f"{len(predicted)} readable predictions that do not vary enough: there is no correlation")
    return Metrics(
        plcc=float(pearsonr(predicted, truth).statistic),
        plcc_fitted=float(pearsonr(fit_logistic(predicted, truth), truth).statistic),
        srcc=float(spearmanr(predicted, truth).statistic),
        n=len(predicted),
    )


def fit_logistic(predicted: Array, truth: Array) -> Array:
    """Predictions mapped by y = (b1 - b2) / (1 + exp(-(x - b3) / b4)) + b2, fitted to the truth.

    Where the fit does not converge the predictions are returned as they are.
    """
    start = [truth.max(), truth.min(), predicted.mean(), max(float(predicted.std()), 1e-6) / 4]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)
        try:
            parameters, _ = curve_fit(_logistic, predicted, truth, start, maxfev=20_000)
        except RuntimeError:
            return predicted
    return np.asarray(_logistic(predicted, *parameters))


def _logistic(x: Array, b1: float, b2: float, b3: float, b4: float) -> Array:
    return (b1 - b2) / (1 + np.exp(np.clip(-(x - b3) / b4, -500, 500))) + b2


def weighted_mean(values: Mapping[str, float], counts: Mapping[str, int]) -> float:
    """Mean over benchmarks, weighted by their number of images."""
    return sum(values[name] * counts[name] for name in values) / sum(counts[name] for name in values)


def relative_gain_percent(before: Mapping[str, float], after: Mapping[str, float], counts: Mapping[str, int]) -> float:
    """The paper's headline: the sample-weighted mean of the benchmarks' relative gains, in percent."""
    gains = {name: (after[name] - before[name]) / before[name] for name in before}
    return 100 * weighted_mean(gains, counts)
