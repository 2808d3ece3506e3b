"""The fidelity reward of EvoQuality (arXiv 2509.25787, Eq. 2-4), the reward of its ablation that regresses to the mean
score, and the group's advantages (Eq. 5).

Pure maths on numpy arrays. Unreadable answers are NaN: they have no score, are left out of every mean and variance, and
get the lowest reward of their image's group.
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


def thurstone(scores: Array, partner: Array, gamma: float) -> Array:
    """Eq. 2: probability that each of an image's K scores beats its partner's K scores.

    `scores` and `partner` are (K,), NaN where unreadable; variances are unbiased. Returns (K,).
    """
    spread = np.nanvar(scores, ddof=1) + np.nanvar(partner, ddof=1) + gamma
    return ndtr((scores - np.nanmean(partner)) / np.sqrt(spread))


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
        (B, K). An image with fewer than two readable scores is nobody's partner; it, and an image left without
        partners, has NaN rewards and takes no part in the update.
    """
    usable = np.isfinite(scores).sum(1) >= 2
    result = np.full(scores.shape, np.nan)
    for i in np.flatnonzero(usable):
        partners = np.flatnonzero(usable & np.isfinite(labels[i]))
        if len(partners) == 0:
            continue
        per_partner = [fidelity(labels[i, j], thurstone(scores[i], scores[j], gamma)) for j in partners]
        reward = np.mean(per_partner, axis=0)
        result[i] = np.where(np.isfinite(scores[i]), reward, np.nanmin(reward))
    return result


def regression_rewards(scores: Array, targets: Array) -> Array:
    """The reward of the ablation: 1 at the image's pseudo-score, falling by a quarter a point of distance.

    The paper does not publish its reward for nearness; a linear one has its maximum at the target itself.

    Args:
        scores: (B, K) sampled scores, NaN where unreadable.
        targets: (B,) pseudo-scores, the mean of each image's own K scores; NaN where none was readable.

    Returns:
        (B, K). An image without a target or a readable score has NaN rewards and takes no part in the update.
    """
    reward = 1 - np.abs(scores - targets[:, None]) / 4
    readable = np.isfinite(reward)
    lowest = np.where(readable, reward, np.inf).min(1, keepdims=True)
    return np.where(readable.any(1, keepdims=True), np.where(readable, reward, lowest), np.nan)


def advantages(rewards: Array, *, normalise: bool = True) -> Array:
    """Eq. 5: each reward minus its group's mean, over the group's standard deviation if `normalise`.

    Groups without spread or without rewards get zeros: they carry no signal. (B, K) -> (B, K).
    """
    centred = rewards - rewards.mean(1, keepdims=True)
    deviation = rewards.std(1, ddof=1, keepdims=True)
    informative = np.nan_to_num(deviation) > 1e-8
    scaled = centred / np.where(informative, deviation, 1) if normalise else centred
    return np.where(informative, scaled, 0.0)


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
