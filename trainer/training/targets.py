"""What the scores of a step are rewarded for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.training.reward import regression_rewards, rewards
from trainer.voting.pairs import Group
from trainer.voting.vote import Pair


class Target(Protocol):
    """What a round found out before its training."""

    def rewards(self, group: Group, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """(B, K) rewards of the (B, K) scores of a group, see `reward`."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Ordering images as the votes do."""

    labels: Mapping[Pair, float]
    gamma: float

    def rewards(self, group: Group, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The fidelity reward."""
        labels = np.array([[self.labels.get((one, other), np.nan) for other in group] for one in group])
        return rewards(scores, labels, self.gamma)


@dataclass(frozen=True, slots=True)
class Regression:
    """Nearness to a pseudo-score of each image: the mean of its own scores before the training."""

    means: Mapping[str, float]

    def rewards(self, group: Group, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The ablation's reward."""
        return regression_rewards(scores, np.array([self.means.get(image, np.nan) for image in group]))
