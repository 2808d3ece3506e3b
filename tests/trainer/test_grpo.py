"""The losses against transcriptions of their papers' equations, token by token in float64, and against autograd."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from trainer.training.grpo import KL_LIMIT, group_loss, k3
from trainer.training.losses import Cispo, Dapo, Gspo, Loss, Sapo

DAPO = Dapo(0.2, 0.28, truncation=2)
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
    assert group_loss(*given, beta=BETA, loss=DAPO).loss.item() == pytest.approx(transcribed(*given), rel=1e-10)


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
    found = group_loss(policy, *others, beta=BETA, loss=DAPO)
    found.loss.backward()
    torch.testing.assert_close(policy.grad, transcribed_gradient(policy.detach(), *others))
    assert found.truncated > 0


def test_within_the_truncation_the_gradient_equals_finite_differences() -> None:
    policy, *others = inputs(7)
    policy.requires_grad_()
    loose = Dapo(0.2, 0.28, truncation=100)
    assert torch.autograd.gradcheck(lambda p: group_loss(p, *others, beta=BETA, loss=loose).loss, (policy,))


def test_without_a_reference_there_is_no_penalty() -> None:
    policy, rollout, reference, advantage, mask = inputs(2)
    without = group_loss(policy, rollout, None, advantage, mask, beta=BETA, loss=DAPO)
    unweighted = group_loss(policy, rollout, reference, advantage, mask, beta=0.0, loss=DAPO)
    assert without.loss == unweighted.loss
    assert without.kl == 0


def test_what_is_plotted_of_the_ratio() -> None:
    ratio = torch.tensor([[[0.5, 1.0, 3.0, 99.0]]], dtype=torch.float64)
    mask = torch.tensor([[[1.0, 1.0, 1.0, 0.0]]], dtype=torch.float64)
    found = group_loss(ratio.log(), torch.zeros_like(ratio), None, torch.ones(1, 1), mask, beta=0, loss=DAPO)
    assert (found.ratio, found.ratio_max, found.truncated, found.clipped) == (4.5, pytest.approx(3), 1, 2)


def test_on_policy_and_without_kl_the_gradient_is_that_of_reinforce() -> None:
    _, rollout, reference, advantage, mask = inputs(3)
    policy = rollout.clone().requires_grad_()
    group_loss(policy, rollout, reference, advantage, mask, beta=0.0, loss=DAPO).loss.backward()
    torch.testing.assert_close(policy.grad, -advantage[..., None] * mask)


def test_beyond_the_trust_region_a_token_is_pushed_no_further() -> None:
    rollout = torch.zeros(1, 2, 1, dtype=torch.float64)
    policy = torch.tensor([[[0.5], [-0.5]]], dtype=torch.float64, requires_grad=True)
    advantage, ones = torch.tensor([[1.0, -1.0]], dtype=torch.float64), torch.ones(1, 2, 1, dtype=torch.float64)
    found = group_loss(policy, rollout, rollout, advantage, ones, beta=0.0, loss=DAPO)
    found.loss.backward()
    assert (policy.grad == 0).all()
    assert found.clipped == 2


def test_kl_is_zero_at_the_reference_and_positive_elsewhere() -> None:
    policy, rollout, reference, advantage, mask = inputs(1)
    assert group_loss(policy, rollout, policy, advantage, mask, beta=BETA, loss=DAPO).kl.item() == 0
    assert group_loss(policy, rollout, reference, advantage, mask, beta=BETA, loss=DAPO).kl.item() > 0


def dapo(ratios: Sequence[Tensor], logs: Sequence[Tensor], a: float) -> list[Tensor]:
    """arXiv 2503.14476, Eq. 8."""
    return [torch.minimum(r * a, r.clamp(0.8, 1.28) * a) for r in ratios]


def gspo(ratios: Sequence[Tensor], logs: Sequence[Tensor], a: float) -> list[Tensor]:
    """arXiv 2507.18071, Eq. 5 and 7: s = (pi(y) / pi_old(y)) ^ (1 / |y|), once for an answer."""
    s = math.prod(ratios) ** (1 / len(ratios))
    return [torch.minimum(s * a, s.clamp(1 - 0.03, 1 + 0.04) * a)]


def cispo(ratios: Sequence[Tensor], logs: Sequence[Tensor], a: float) -> list[Tensor]:
    """arXiv 2506.13585, Eq. 4-5: the clipped ratio has no gradient."""
    return [r.detach().clamp(1 - 0.9, 1 + 0.5) * a * log for r, log in zip(ratios, logs, strict=True)]


def sapo(ratios: Sequence[Tensor], logs: Sequence[Tensor], a: float) -> list[Tensor]:
    """arXiv 2511.20347, Eq. 5-6."""
    tau = 1.0 if a > 0 else 1.05
    return [4 / tau / (1 + torch.exp(-tau * (r - 1))) * a for r in ratios]


Transcribed = Callable[[Sequence[Tensor], Sequence[Tensor], float], list[Tensor]]
LOOSE = 1e9
LOSSES: list[tuple[Loss, Transcribed, bool]] = [
    (Dapo(0.2, 0.28, LOOSE), dapo, False),
    (Gspo(0.03, 0.04, LOOSE), gspo, True),
    (Cispo(0.9, 0.5), cispo, False),
    (Sapo(), sapo, True),
]
"""A loss, its equation for one answer, and True if the paper averages each answer first."""


def by_equation(
    equation: Transcribed, mean_of_answers: bool, policy: Tensor, rollout: Tensor, reference: Tensor, *rest: Tensor
) -> Tensor:
    """The batch's mean loss, answer by answer."""
    advantage, mask = rest
    answers = []
    for n, k in itertools.product(*map(range, advantage.shape)):
        places = [t for t in range(mask.shape[2]) if mask[n, k, t]]
        logs = [policy[n, k, t] for t in places]
        ratios = [torch.exp(policy[n, k, t]) / torch.exp(rollout[n, k, t]) for t in places]
        refs = [torch.exp(reference[n, k, t]) / torch.exp(policy[n, k, t]) for t in places]
        penalty = [BETA * (r - torch.log(r) - 1) for r in refs]
        answers.append((equation(ratios, logs, float(advantage[n, k])), penalty))
    if mean_of_answers:
        return -sum(sum(o) / len(o) - sum(p) / len(p) for o, p in answers) / len(answers)
    return -sum(sum(o) - sum(p) for o, p in answers) / sum(len(p) for _, p in answers)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("loss", "equation", "mean_of_answers"), LOSSES, ids=["dapo", "gspo", "cispo", "sapo"])
def test_each_loss_has_the_gradient_of_its_papers_equation(
    loss: Loss, equation: Transcribed, mean_of_answers: bool, seed: int
) -> None:
    policy, *others = inputs(seed)
    mine, theirs = policy.clone().requires_grad_(), policy.clone().requires_grad_()
    found = group_loss(mine, *others, beta=BETA, loss=loss).loss / (10 if mean_of_answers else others[-1].sum())
    expected = by_equation(equation, mean_of_answers, theirs, *others)
    assert found.item() == pytest.approx(expected.item(), rel=1e-10)
    found.backward()
    expected.backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-14)
    assert theirs.grad.abs().max() > 1e-3


@pytest.mark.parametrize("loss", [DAPO, Gspo(), Cispo(), Sapo()], ids=["dapo", "gspo", "cispo", "sapo"])
def test_on_policy_every_loss_pushes_each_answer_by_its_advantage(loss: Loss) -> None:
    _, rollout, _, advantage, mask = inputs(3)
    policy = rollout.clone().requires_grad_()
    group_loss(policy, rollout, None, advantage, mask, beta=0.0, loss=loss).loss.backward()
    lengths = mask.sum(-1, keepdim=True)
    expected = -advantage[..., None] * mask / (lengths if loss.by_answer else 1)
    torch.testing.assert_close(policy.grad, expected)


def test_one_ratio_of_an_answer_is_truncated_too_where_the_trust_region_is_open() -> None:
    ratio = torch.full((1, 1, 3), 8.0, dtype=torch.float64)
    policy, ones = ratio.log().requires_grad_(), torch.ones_like(ratio)
    worse = torch.tensor([[-1.0]], dtype=torch.float64)
    found = group_loss(policy, torch.zeros_like(ratio), None, worse, ones, beta=0, loss=Gspo(truncation=2))
    found.loss.backward()
    torch.testing.assert_close(policy.grad, torch.full_like(ratio, 2 / 3))
    assert (found.truncated, found.clipped) == (3, 3)


def test_a_masked_answer_takes_no_part_in_any_loss() -> None:
    policy, rollout, reference, advantage, mask = inputs(4)
    policy.requires_grad_()
    for loss in (DAPO, Gspo(), Cispo(), Sapo()):
        hidden = mask.clone()
        hidden[0, 1] = 0
        (grad,) = torch.autograd.grad(
            group_loss(policy, rollout, reference, advantage, hidden, beta=BETA, loss=loss).loss, policy
        )
        assert (grad[0, 1] == 0).all() and torch.isfinite(grad).all() and (grad[0, 0] != 0).any()


def test_the_penalty_is_exact_up_to_its_limit_and_a_line_of_the_same_slope_beyond() -> None:
    apart = torch.tensor([-16.0, -1.0, 0.0, 1.0, 4.9, 5.0, 16.0, 700.0], dtype=torch.float64, requires_grad=True)
    found = k3(apart)
    found.sum().backward()
    exact = apart.detach() <= KL_LIMIT
    torch.testing.assert_close(found[exact], (apart.exp() - apart - 1)[exact])
    torch.testing.assert_close(apart.grad, apart.detach().clamp(max=5).exp() - 1)
    assert found[-2].item() == pytest.approx(math.exp(5) - 6 + 11 * (math.exp(5) - 1))
