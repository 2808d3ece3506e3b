"""The GRPO loss of EvoQuality (arXiv 2509.25787, Eq. 5-6) on groups of answers, one an image: one of `losses`, and a KL
penalty to the model at the start of the round."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trainer.training.losses import Loss, lengths

KL_LIMIT = 5.0
"""Nats by which the reference may prefer a token before its penalty goes on along the tangent. The pull back to the
reference then stays, at e^5: unlimited, one token 16 nats away outweighs the whole step by 10^5."""


class GroupLoss(NamedTuple):
    """The loss of some groups and its metrics, all detached but `loss`."""

    loss: Tensor
    """A sum over tokens; over answers if the loss is `by_answer`."""
    kl: Tensor
    clipped: Tensor
    truncated: Tensor
    ratio: Tensor
    """Sums over tokens, up to here."""
    ratio_max: Tensor


def group_loss(
    policy: Tensor,
    rollout: Tensor,
    reference: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    *,
    beta: float,
    loss: Loss,
) -> GroupLoss:
    """-sum over tokens of objective - beta KL, to be divided by the batch's token count; of a loss by answer the sum of
    each answer's mean, to be divided by the batch's number of answers.

    Args:
        policy: (N, K, T) log-probabilities of the sampled tokens under the policy being trained.
        rollout: (N, K, T) the same under the policy that sampled them, as the engine reported.
        reference: (N, K, T) the same under the frozen initial model; None leaves the KL penalty out.
        advantages: (N, K) one for each answer.
        mask: (N, K, T) 1 for answer tokens, 0 for padding and for answers that take no part.
        beta: weight of the KL penalty to the reference (see `k3`).
        loss: the objective.
    """
    objective = loss(policy, rollout, advantages[..., None], mask)
    kl = torch.zeros_like(policy) if reference is None else k3(reference - policy)
    weight = mask / lengths(mask) if loss.by_answer else mask
    total = -((objective.value - beta * kl) * weight).sum()
    with torch.no_grad():
        ratio = torch.exp(policy - rollout) * mask
        kl, clipped, truncated = ((each * mask).sum() for each in (kl, objective.clipped, objective.truncated))
        return GroupLoss(total, kl, clipped, truncated, ratio.sum(), ratio.max())


def k3(log_ratio: Tensor) -> Tensor:
    """The estimator r - log r - 1 of the KL divergence (Schulman 2020, "Approximating KL divergence"), where r is
    reference / policy; beyond `KL_LIMIT` it is a straight line of the same slope."""
    near = log_ratio.clamp(max=KL_LIMIT)
    return torch.exp(near) * (1 + log_ratio - near) - log_ratio - 1
