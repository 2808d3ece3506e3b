"""The GRPO loss of EvoQuality (arXiv 2509.25787, Eq. 5-6) on groups of answers, one an image.

The ratio is that of the policy being trained to the one that sampled, by the engine's own log-probabilities. It
corrects both for what the policy has learned since (one step, when rollouts overlap updates) and for numerical
differences between engine and torch: it is an importance weight inside a trust region (PPO, arXiv 1707.06347). The
trust region is open on one side: a token that became likelier although its answer was worse than the others may have
any ratio. There the ratio is truncated at C (truncated importance sampling: Ionides 2008; for GRPO with a separate
engine Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Clipping:
    """Bounds of the probability ratio: a trust region of 1 - low to 1 + high (DAPO's, arXiv 2503.14476), and C."""

    low: float = 0.2
    high: float = 0.28
    truncation: float = 2.0


class GroupLoss(NamedTuple):
    """The loss of some groups and its metrics. All are sums over tokens but `ratio_max`, all detached but `loss`."""

    loss: Tensor
    kl: Tensor
    clipped: Tensor
    truncated: Tensor
    ratio: Tensor
    ratio_max: Tensor


def group_loss(
    policy: Tensor,
    rollout: Tensor,
    reference: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    *,
    beta: float,
    clipping: Clipping,
) -> GroupLoss:
    """-sum over tokens of w min(ratio a, clip(ratio) a) - beta KL, to be divided by the batch's token count.

    w = min(1, C / ratio), without gradient: a truncated token has the weight of one of ratio C.

    Args:
        policy: (N, K, T) log-probabilities of the sampled tokens under the policy being trained.
        rollout: (N, K, T) the same under the policy that sampled them, as the engine reported.
        reference: (N, K, T) the same under the frozen initial model; None leaves the KL penalty out.
        advantages: (N, K) one for each answer.
        mask: (N, K, T) 1 for answer tokens, 0 for padding.
        beta: weight of the KL penalty to the reference (the k3 estimator, r - log r - 1 with r = ref / policy).
        clipping: the bounds of the ratio.
    """
    ratio = torch.exp(policy - rollout)
    weight = advantages[..., None]
    clipped = ratio.clamp(1 - clipping.low, 1 + clipping.high)
    surrogate = torch.minimum(ratio * weight, clipped * weight)
    truncation = (clipping.truncation / ratio.detach()).clamp(max=1)
    r = torch.zeros_like(policy) if reference is None else reference - policy
    kl = torch.exp(r) - r - 1
    loss = -((truncation * surrogate - beta * kl) * mask).sum()
    with torch.no_grad():
        outside, truncated = ((ratio != clipped) * mask).sum(), ((truncation < 1) * mask).sum()
        return GroupLoss(loss, (kl * mask).sum(), outside, truncated, (ratio * mask).sum(), (ratio * mask).max())
