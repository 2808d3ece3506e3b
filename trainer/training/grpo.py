"""The GRPO loss of EvoQuality (arXiv 2509.25787, Eq. 5-6) on groups of answers, one an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Clipping:
    """The trust region of the probability ratio: 1 - low to 1 + high (DAPO's, arXiv 2503.14476)."""

    low: float = 0.2
    high: float = 0.28


@dataclass(frozen=True, slots=True)
class GroupLoss:
    """The loss of some groups and what to plot about it. Sums over tokens, detached except `loss`."""

    loss: Tensor
    kl: Tensor
    entropy: Tensor
    clipped: Tensor
    ratio_error: Tensor


def group_loss(
    policy: Tensor,
    rollout: Tensor,
    reference: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    beta: float,
    clipping: Clipping,
) -> GroupLoss:
    """-sum over tokens of min(ratio a, clip(ratio) a) - beta KL, to be divided by the batch's token count.

    Args:
        policy: (N, K, T) log-probabilities of the sampled tokens under the policy being trained.
        rollout: (N, K, T) the same under the policy that sampled them, as the engine reported.
        reference: (N, K, T) the same under the frozen initial model.
        advantages: (N, K) one for each answer.
        mask: (N, K, T) 1 for answer tokens, 0 for padding.
        beta: weight of the KL penalty to the reference (the k3 estimator, r - log r - 1 with r = ref / policy).
        clipping: the trust region.
    """
    ratio = torch.exp(policy - rollout)
    weight = advantages[..., None]
    clipped = ratio.clamp(1 - clipping.low, 1 + clipping.high)
    surrogate = torch.minimum(ratio * weight, clipped * weight)
    kl = torch.exp(reference - policy) - (reference - policy) - 1
    with torch.no_grad():
        entropy = -(policy * mask).sum()
        outside = ((ratio != clipped) * mask).sum()
        ratio_error = ((ratio - 1).abs() * mask).sum()
    loss = -((surrogate - beta * kl) * mask).sum()
    return GroupLoss(loss, (kl * mask).sum().detach(), entropy, outside, ratio_error)
