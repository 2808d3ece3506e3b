"""The losses of `--loss`: what a step raises for each token of an answer, and how answers are averaged.

All take the ratio of the policy being trained to the one that sampled, by the engine's own log-probabilities. It
corrects both for what the policy has learned since (one step, when rollouts overlap updates) and for numerical
differences between engine and torch: it is an importance weight, which each loss bounds in its own way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from trainer.settings.evolve import TrainingSettings


class Objective(NamedTuple):
    """Of (N, K, T) tokens."""

    value: Tensor
    """Raised by a step; its gradient is what matters, not its size."""
    clipped: Tensor
    """True for a token whose ratio is out of bounds."""
    truncated: Tensor
    """True for a token whose weight is held at that of the largest ratio."""


class Loss(Protocol):
    """A loss without its KL penalty."""

    by_answer: ClassVar[bool]
    """True if every answer has the same weight, False if every token has."""

    def __call__(self, policy: Tensor, rollout: Tensor, advantages: Tensor, mask: Tensor) -> Objective:
        """Arguments as of `group_loss`, the advantages as (N, K, 1)."""


@dataclass(frozen=True, slots=True)
class Dapo:
    """DAPO's clip (arXiv 2503.14476, Eq. 8): min(r A, clip(r, 1 - low, 1 + high) A), averaged over tokens.

    Its trust region is open on one side: a token that became likelier although its answer was worse than the others may
    have any ratio. There the weight is truncated at C (truncated importance sampling: Ionides 2008; for GRPO with a
    separate engine Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training").
    """

    by_answer: ClassVar[bool] = False
    low: float = 0.2
    high: float = 0.28
    truncation: float = 2.0
    """C."""

    def __call__(self, policy: Tensor, rollout: Tensor, advantages: Tensor, mask: Tensor) -> Objective:
        return self.of_ratio(torch.exp(policy - rollout), advantages)

    def of_ratio(self, ratio: Tensor, advantages: Tensor) -> Objective:
        """A truncated token has the weight of one of ratio C: w = min(1, C / r), without gradient."""
        clipped = ratio.clamp(1 - self.low, 1 + self.high)
        weight = (self.truncation / ratio.detach()).clamp(max=1)
        value = weight * torch.minimum(ratio * advantages, clipped * advantages)
        return Objective(value, ratio != clipped, weight < 1)


@dataclass(frozen=True, slots=True)
class Gspo:
    """GSPO (arXiv 2507.18071, Eq. 5-7): the same clip of one ratio an answer, the geometric mean of its tokens'."""

    by_answer: ClassVar[bool] = True
    low: float = 3e-4
    high: float = 4e-4
    truncation: float = 2.0

    def __call__(self, policy: Tensor, rollout: Tensor, advantages: Tensor, mask: Tensor) -> Objective:
        mean = ((policy - rollout) * mask).sum(-1, keepdim=True) / lengths(mask)
        return Dapo(self.low, self.high, self.truncation).of_ratio(mean.exp().expand_as(mask), advantages)


@dataclass(frozen=True, slots=True)
class Cispo:
    """CISPO (MiniMax-M1, arXiv 2506.13585, Eq. 4-5): REINFORCE on every token with a clipped importance weight, which
    has no gradient, averaged over tokens."""

    by_answer: ClassVar[bool] = False
    low: float = 1.0
    high: float = 4.0

    def __call__(self, policy: Tensor, rollout: Tensor, advantages: Tensor, mask: Tensor) -> Objective:
        ratio = torch.exp(policy - rollout).detach()
        clipped = ratio.clamp(1 - self.low, 1 + self.high)
        return Objective(clipped * advantages * policy, ratio != clipped, _never(ratio))


@dataclass(frozen=True, slots=True)
class Sapo:
    """SAPO (arXiv 2511.20347, Eq. 5-6): a sigmoid of the ratio in place of the clip, steeper for worse answers."""

    by_answer: ClassVar[bool] = True
    positive: float = 1.0
    negative: float = 1.05
    """The temperatures for answers better and worse than the mean."""

    def __call__(self, policy: Tensor, rollout: Tensor, advantages: Tensor, mask: Tensor) -> Objective:
        ratio = torch.exp(policy - rollout)
        temperature = torch.full_like(advantages, self.negative).masked_fill(advantages > 0, self.positive)
        gate = torch.sigmoid(temperature * (ratio - 1)) * 4 / temperature
        return Objective(gate * advantages, _never(ratio), _never(ratio))


def lengths(mask: Tensor) -> Tensor:
    """(N, K, 1) tokens of each answer; 1 for a masked one, which has none."""
    return mask.sum(-1, keepdim=True).clamp(min=1)


def chosen(settings: TrainingSettings) -> Loss:
    """The loss that the settings name."""
    s = settings
    losses: dict[str, Loss] = {
        "dapo": Dapo(s.clip_low, s.clip_high, s.truncation),
        "gspo": Gspo(s.clip_low, s.clip_high, s.truncation),
        "cispo": Cispo(s.clip_low, s.clip_high),
        "sapo": Sapo(),
    }
    return losses[s.loss]


def _never(ratio: Tensor) -> Tensor:
    return torch.zeros_like(ratio, dtype=torch.bool)
