"""How well predicted scores agree with mean opinion scores, by the field's metrics."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata

from trainer.errors import UserError
from trainer.evaluation.logistic import fit_logistic

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Metrics:
    """Agreement of predictions with the truth on one benchmark."""

    plcc: float
    """Pearson correlation of the raw predictions (pyiqa's convention)."""
    plcc_fitted: float
    """Pearson correlation after the 4-parameter logistic fit (DeQA-Score's convention). Positive for an inverted
    predictor too, unless images are a mere handful: the fit turns it."""
    srcc: float
    """Spearman rank correlation of the raw predictions; ties get average ranks."""
    krcc: float
    """Kendall rank correlation of the raw predictions, tau-b."""
    rmse: float
    """Root mean squared error after the fit, on the scale of the truth."""
    pairwise_accuracy: float
    """Share of pairs ordered as in the truth; pairs tied in the truth are left out, tied predictions count half."""
    n: int
    """Images with a readable prediction."""


class FitWarning(UserWarning):
    """The logistic fit did not converge: `plcc_fitted` and `rmse` are of the best curve it came to."""


def measure(predicted: Array, truth: Array, *, tolerance: float = 1e-8) -> Metrics:
    """All metrics of (N,) predictions; NaN predictions (unreadable answers) are left out and `n` tells.

    `tolerance` is the fit's, see `fit_logistic`. Raises ValueError, see `require_variation`.
    """
    readable = np.isfinite(predicted)
    predicted, truth = predicted[readable], truth[readable]
    require_variation(predicted, truth)
    curve = fit_logistic(predicted, truth, tolerance=tolerance)
    if not curve.converged:
        warnings.warn(f"the logistic fit to {len(truth)} images did not converge", FitWarning, stacklevel=2)
    fitted, tau = curve(predicted), float(kendalltau(predicted, truth, method="asymptotic").statistic)
    return Metrics(
        plcc=pearson(predicted, truth),
        plcc_fitted=pearson(fitted, truth) if np.ptp(fitted) else 0.0,
        srcc=spearman(predicted, truth),
        krcc=tau,
        rmse=float(np.sqrt(np.mean((fitted - truth) ** 2))),
        pairwise_accuracy=_pairwise_accuracy(tau, predicted, truth),
        n=len(predicted),
    )


def require_variation(predicted: Array, truth: Array) -> None:
    """Raises ValueError where nothing can be correlated: fewer than four images, or all alike on either side."""
    if len(predicted) < 4 or np.ptp(predicted) == 0 or np.ptp(truth) == 0:
        raise UserError(
            f"{len(predicted)} readable predictions: at least four are needed, and neither they nor the mean opinion "
            "scores may all be the same, or there is no correlation"
        )


def pearson(predicted: Array, truth: Array) -> float:
    """Pearson's correlation of two (N,) arrays; NaN where one is constant."""
    return float(np.corrcoef(predicted, truth)[0, 1])


def spearman(predicted: Array, truth: Array) -> float:
    """Spearman's rank correlation of two (N,) arrays, ties by average ranks; NaN where one is constant."""
    return pearson(rankdata(predicted), rankdata(truth))


def _pairwise_accuracy(tau: float, predicted: Array, truth: Array) -> float:
    """(1 + Somers' D) / 2, where D = (concordant - discordant) / pairs untied in the truth; tau-b has the same
    numerator over the geometric mean of the pairs untied in either (Somers 1962, eq. 2)."""
    return (1 + tau * float(np.sqrt(_untied_pairs(predicted) / _untied_pairs(truth)))) / 2


def _untied_pairs(values: Array) -> int:
    _, counts = np.unique(values, return_counts=True)
    return int(len(values) ** 2 - np.sum(counts**2)) // 2
