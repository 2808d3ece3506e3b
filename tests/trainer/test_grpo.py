"""The loss against a transcription of Eq. 5-6 and against autograd, in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from trainer.training.grpo import Clipping, group_loss

CLIPPING = Clipping(0.2, 0.28, truncation=2)
BETA = 0.05


def inputs(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    shape = (2, 5, 4)
    rollout = -3 * torch.rand(shape, dtype=torch.float64)
    policy = rollout + 0.6 * torch.randn(shape, dtype=torch.float64)
    reference = rollout + 0.3 * torch.randn(shape, dtype=torch.float64)
    mask = torch.ones(shape, dtype=torch.float64)
    mask[1, 0, 2:] = 0
    return policy, rollout, reference, torch.randn(2, 5, dtype=torch.float64), mask


def transcribed(policy: Tensor, rollout: Tensor, reference: Tensor, advantage: Tensor, mask: Tensor) -> float:
    total = 0.0
    for n, k, t in itertools.product(*map(range, policy.shape)):
        if mask[n, k, t] == 0:
            continue
        a, new, old, ref = float(advantage[n, k]), *(float(x[n, k, t]) for x in (policy, rollout, reference))
        rho = math.exp(new) / math.exp(old)
        clipped = min(max(rho, 1 - 0.2), 1 + 0.28)
        kl = math.exp(ref) / math.exp(new) - math.log(math.exp(ref) / math.exp(new)) - 1
        total -= min(1, 2 / rho) * min(rho * a, clipped * a) - BETA * kl
    return total


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_equals_the_transcribed_equation(seed: int) -> None:
    given = inputs(seed)
    assert group_loss(*given, beta=BETA, clipping=CLIPPING).loss.item() == pytest.approx(transcribed(*given), rel=1e-10)


def transcribed_gradient(policy: Tensor, rollout: Tensor, reference: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
    """Of each token's log-probability: -min(ratio, C) a where the trust region is open, and the KL penalty's."""
    result = torch.zeros_like(policy)
    for n, k, t in itertools.product(*map(range, policy.shape)):
        a, rho = float(advantage[n, k]), math.exp(policy[n, k, t] - rollout[n, k, t])
        is_open = rho <= 1 + 0.28 if a > 0 else rho >= 1 - 0.2
        kl = 1 - math.exp(reference[n, k, t] - policy[n, k, t])
        result[n, k, t] = mask[n, k, t] * (BETA * kl - (min(rho, 2) * a if is_open else 0))
    return result


@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_equals_the_transcribed_one(seed: int) -> None:
    policy, *others = inputs(seed)
    policy.requires_grad_()
    found = group_loss(policy, *others, beta=BETA, clipping=CLIPPING)
    found.loss.backward()
    torch.testing.assert_close(policy.grad, transcribed_gradient(policy.detach(), *others))
    assert found.truncated > 0


def test_within_the_truncation_the_gradient_equals_finite_differences() -> None:
    policy, *others = inputs(7)
    policy.requires_grad_()
    loose = Clipping(0.2, 0.28, truncation=100)
    assert torch.autograd.gradcheck(lambda p: group_loss(p, *others, beta=BETA, clipping=loose).loss, (policy,))


def test_without_a_reference_there_is_no_penalty() -> None:
    policy, rollout, reference, advantage, mask = inputs(2)
    without = group_loss(policy, rollout, None, advantage, mask, beta=BETA, clipping=CLIPPING)
    unweighted = group_loss(policy, rollout, reference, advantage, mask, beta=0.0, clipping=CLIPPING)
    assert without.loss == unweighted.loss
    assert without.kl == 0


def test_what_is_plotted_of_the_ratio() -> None:
    ratio = torch.tensor([[[0.5, 1.0, 3.0, 99.0]]], dtype=torch.float64)
    mask = torch.tensor([[[1.0, 1.0, 1.0, 0.0]]], dtype=torch.float64)
    found = group_loss(ratio.log(), torch.zeros_like(ratio), None, torch.ones(1, 1), mask, beta=0, clipping=CLIPPING)
    assert (found.ratio, found.ratio_max, found.truncated, found.clipped) == (4.5, pytest.approx(3), 1, 2)


def test_on_policy_and_without_kl_the_gradient_is_that_of_reinforce() -> None:
    _, rollout, reference, advantage, mask = inputs(3)
    policy = rollout.clone().requires_grad_()
    group_loss(policy, rollout, reference, advantage, mask, beta=0.0, clipping=CLIPPING).loss.backward()
    torch.testing.assert_close(policy.grad, -advantage[..., None] * mask)


def test_beyond_the_trust_region_a_token_is_pushed_no_further() -> None:
    rollout = torch.zeros(1, 2, 1, dtype=torch.float64)
    policy = torch.tensor([[[0.5], [-0.5]]], dtype=torch.float64, requires_grad=True)
    advantage, ones = torch.tensor([[1.0, -1.0]], dtype=torch.float64), torch.ones(1, 2, 1, dtype=torch.float64)
    found = group_loss(policy, rollout, rollout, advantage, ones, beta=0.0, clipping=CLIPPING)
    found.loss.backward()
    assert (policy.grad == 0).all()
    assert found.clipped == 2


def test_kl_is_zero_at_the_reference_and_positive_elsewhere() -> None:
    policy, rollout, reference, advantage, mask = inputs(1)
    assert group_loss(policy, rollout, policy, advantage, mask, beta=BETA, clipping=CLIPPING).kl.item() == 0
    assert group_loss(policy, rollout, reference, advantage, mask, beta=BETA, clipping=CLIPPING).kl.item() > 0
