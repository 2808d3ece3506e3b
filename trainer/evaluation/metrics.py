"""Agreement of predicted scores with mean opinion scores, by the field's metrics."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import expit
from scipy.stats import kendalltau, rankdata

from trainer.errors import UserError

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Logistic:
    """y = (b1 - b2) / (1 + exp(-(x - b3) / b4)) + b2."""

    b1: float
    b2: float
    b3: float
    b4: float
    converged: bool = True

    def __call__(self, x: Array) -> Array:
        """(N,) predictions on the scale of the truth."""
        return (self.b1 - self.b2) * np.asarray(expit((x - self.b3) / self.b4)) + self.b2


def fit_logistic(predicted: Array, truth: Array, *, tolerance: float = 1e-8) -> Logistic:
    """Levenberg-Marquardt least-squares fit of (N,) predictions, N >= 4, to the truth.

    Same method and start (max y, min y, mean x, std x / 4) as DeQA-Score and pyiqa. Converges when a step lowers the
    sum of squares by less than the share `tolerance`. After 10,000 evaluations it returns the best curve so far with
    `converged` False.
    """
    start = [truth.max(), truth.min(), predicted.mean(), predicted.std() / 4]

    def residuals(b: Array) -> Array:
        return Logistic(*b)(predicted) - truth

    def slopes(b: Array) -> Array:
        """(N, 4) derivatives of the residuals by b1 to b4."""
        z = (predicted - b[2]) / b[3]
        share = np.asarray(expit(z))
        slope = -(b[0] - b[1]) * share * (1 - share) / b[3]
        return np.stack([share, 1 - share, slope, slope * z], axis=1)

    with np.errstate(over="ignore"):
        found = least_squares(residuals, start, slopes, method="lm", x_scale="jac", ftol=tolerance, max_nfev=10_000)
    b1, b2, b3, b4 = map(float, found.x)
    return Logistic(b1, b2, b3, b4, bool(found.success))


@dataclass(frozen=True, slots=True)
class Metrics:
    """Agreement of predictions with the truth on one benchmark."""

    plcc: float
    """Pearson correlation of the raw predictions (pyiqa's convention)."""
    plcc_fitted: float
    """Pearson correlation after the 4-parameter logistic fit (DeQA-Score's convention). The fit makes
    it positive for an inverted predictor too, except with very few images."""
    srcc: float
    """Spearman rank correlation of the raw predictions; ties get average ranks."""
    krcc: float
    """Kendall rank correlation of the raw predictions, tau-b."""
    rmse: float
    """Root mean squared error after the fit, on the scale of the truth."""
    pairwise_accuracy: float
    """Share of pairs ordered as in the truth; without pairs tied in the truth, tied predictions counting half."""
    n: int
    """Number of images with a readable prediction."""


class FitWarning(UserWarning):
    """The logistic fit did not converge: `plcc_fitted` and `rmse` are those of the best curve found."""


def measure(predicted: Array, truth: Array, *, tolerance: float = 1e-8) -> Metrics:
    """All metrics of (N,) predictions. NaN predictions (unreadable answers) are left out; `n` counts the others.

    `tolerance`: see `fit_logistic`. Raises UserError, see `require_variation`.
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
    """Raises UserError if no correlation exists: fewer than four images, or constant values on either side."""
    if len(predicted) < 4 or np.ptp(predicted) == 0 or np.ptp(truth) == 0:
        raise UserError(
            f"no correlation for {len(predicted)} readable predictions: it needs at least four, and neither they nor "
            "the mean opinion scores may all be equal"
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
