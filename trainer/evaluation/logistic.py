"""The curve that carries predictions to the scale of the mean opinion scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import expit

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
    """The least-squares fit of (N,) predictions, N >= 4, to the truth by Levenberg-Marquardt, as DeQA-Score and pyiqa
    do it, from where they start: max y, min y, mean x, std x / 4.

    It has converged once a step would lower the squared misses by less than a share of `tolerance`. After 10,000
    evaluations it ends anyway, and `converged` of the best curve so far is False.
    """
    start = [truth.max(), truth.min(), predicted.mean(), predicted.std() / 4]

    def misses(b: Array) -> Array:
        return Logistic(*b)(predicted) - truth

    def slopes(b: Array) -> Array:
        """(N, 4) derivatives of the misses by b1 to b4."""
        z = (predicted - b[2]) / b[3]
        share = np.asarray(expit(z))
        slope = -(b[0] - b[1]) * share * (1 - share) / b[3]
        return np.stack([share, 1 - share, slope, slope * z], axis=1)

    with np.errstate(over="ignore"):
        found = least_squares(misses, start, slopes, method="lm", x_scale="jac", ftol=tolerance, max_nfev=10_000)
    b1, b2, b3, b4 = map(float, found.x)
    return Logistic(b1, b2, b3, b4, bool(found.success))
