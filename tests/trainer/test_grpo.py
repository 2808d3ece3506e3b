"""The loss against a transcription of Eq. 5-6 and against autograd, in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from trainer.training.grpo import Clipping, group_loss

CLIPPING = Clipping(0.2, 0.28)
BETA = 0.05


def inputs(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    shape = (2, 5, 4)
    rollout = -3 * torch.rand(shape, dtype=torch.float64)
    policy = rollout + 0.3 * torch.randn(shape, dtype=torch.float64)
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
        total -= min(rho * a, clipped * a) - BETA * kl
    return total


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_equals_the_transcribed_equation(seed: int) -> None:
    given = inputs(seed)
    assert group_loss(*given, beta=BETA, clipping=CLIPPING).loss.item() == pytest.approx(transcribed(*given), rel=1e-10)


def test_the_gradient_equals_finite_differences() -> None:
    policy, *others = inputs(7)
    policy.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: group_loss(p, *others, beta=BETA, clipping=CLIPPING).loss, (policy,))


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
