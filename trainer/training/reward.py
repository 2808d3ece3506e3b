"""The fidelity reward of EvoQuality (arXiv 2509.25787, Eq. 2-4), the reward of its ablation that regresses to the mean
score, and the group's advantages (Eq. 5).

Pure maths on numpy arrays. Answers without a score are NaN: they are left out of every mean and variance, and earn 0,
which no readable answer goes below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from trainer.voting.groups import Group
from trainer.voting.votes import Pair

Array = NDArray[np.float64]
UNJUDGED = float(np.sqrt(0.5))
"""The reward of a readable answer about which the votes say nothing: the fidelity of a coin flip (Eq. 3)."""
EPSILON = 0.01
"""Added to a group's deviation. Rewards lie between 0 and 1, and healthy groups deviate by 0.05 to 0.3; a deviation far
below that is noise, and must not be blown up to full advantages."""


def thurstone(scores: Array, partner: Array, gamma: float) -> Array:
    """Eq. 2: probability that each of an image's K scores beats its partner's K scores.

    `scores` and `partner` are (K,), NaN where unreadable; variances are unbiased, that of a single score is 0. Returns
    (K,).
    """
    spread = _variance(scores) + _variance(partner) + gamma
    return ndtr((scores - np.nanmean(partner)) / np.sqrt(spread))


def _variance(scores: Array) -> float:
    readable = scores[np.isfinite(scores)]
    return float(readable.var(ddof=1)) if len(readable) > 1 else 0.0


def fidelity(label: float, probability: Array) -> Array:
    """Eq. 3's summand: 1 where the probability equals the label (0, 0.5, 1, or a soft one between), 0 where they are
    opposite."""
    return np.sqrt(label * probability) + np.sqrt((1 - label) * (1 - probability))


def rewards(scores: Array, labels: Array, gamma: float) -> Array:
    """Eq. 3-4: the reward of every sampled score of a batch.

    Args:
        scores: (B, K) sampled scores, NaN where unreadable.
        labels: (B, B) pseudo-labels p*(i, j), NaN where i and j were not paired.
        gamma: added to the variance in the Thurstone probability; keeps its denominator above zero.

    Returns:
        (B, K), from 0 to 1: 0 for an unreadable answer. An image with fewer than two readable scores is nobody's
        partner. The readable answers about an image without partners earn `UNJUDGED`: they differ from its unreadable
        ones alone.
    """
    partners = np.isfinite(labels) & (np.isfinite(scores).sum(1) >= 2)
    judged = [
        np.mean([fidelity(labels[i, j], thurstone(own, scores[j], gamma)) for j in np.flatnonzero(partners[i])], axis=0)
        if partners[i].any() and np.isfinite(own).any()
        else np.full(own.shape, UNJUDGED)
        for i, own in enumerate(scores)
    ]
    return np.where(np.isfinite(scores), judged, 0.0)


def regression_rewards(scores: Array, targets: Array) -> Array:
    """The reward of the ablation: 1 at the image's pseudo-score, falling by a quarter a point of distance.

    The paper does not publish its reward for nearness; a linear one has its maximum at the target itself.

    Args:
        scores: (B, K) sampled scores, NaN where unreadable.
        targets: (B,) pseudo-scores, the mean of each image's own K scores; NaN where none was readable.

    Returns:
        (B, K), from 0 to 1: 0 for an unreadable answer, `UNJUDGED` for the readable ones of an image without a target.
    """
    near = 1 - np.abs(scores - targets[:, None]) / 4
    return np.where(np.isfinite(scores), np.where(np.isfinite(near), near, UNJUDGED), 0.0)


def advantages(rewards: Array, *, normalise: bool = True) -> Array:
    """Eq. 5: each reward minus its group's mean, over the group's standard deviation plus `EPSILON` if `normalise`.

    A NaN reward is that of a masked answer: it has no say in its group's mean and deviation, and its advantage is NaN.
    Groups without spread get zeros: they carry no signal. (B, K) -> (B, K).
    """
    counted = np.ma.masked_invalid(rewards)
    centred = counted - counted.mean(1, keepdims=True)
    deviation = np.ma.filled(counted.std(1, ddof=1, keepdims=True), 0.0)
    scaled = centred / (deviation + EPSILON) if normalise else centred
    return np.ma.filled(scaled * (deviation > _NO_SPREAD), np.nan)


_NO_SPREAD = 1e-8
"""Equal rewards deviate by no more, by rounding."""


class Target(Protocol):
    """A reward for a group's scores, fixed before the training."""

    def rewards(self, group: Group, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """(B, K) rewards of the (B, K) scores of a group."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rewards scores that order images as the votes do."""

    labels: Mapping[Pair, float]
    gamma: float

    def rewards(self, group: Group, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The fidelity reward."""
        labels = np.array([[self.labels.get((one, other), np.nan) for other in group] for one in group])
        return rewards(scores, labels, self.gamma)


@dataclass(frozen=True, slots=True)
class Regression:
    """Rewards nearness to each image's pseudo-score, the mean of its own scores before the training."""

    means: Mapping[str, float]

    def rewards(self, group: Group, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The ablation's reward."""
        return regression_rewards(scores, np.array([self.means.get(image, np.nan) for image in group]))
