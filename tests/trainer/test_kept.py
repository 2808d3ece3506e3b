"""The candidate as written against the policy: the figures, and the gate's criteria of a real policy's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.benchmarks.scale.bf16 import deep_checkpoint, give_update
from tests.trainer.learning import rollout
from tests.trainer.vision_models import PLAIN, picture
from trainer.promotion import kept
from trainer.settings.evolve import EvolveSettings
from trainer.training import policy as policies
from trainer.training.learner import Compared, Learner
from trainer.training.policy import FullPolicy, LoraPolicy, Policy, adapted_layers

LIMITS = {"most_apart": 0.15, "least_kept": 0.8}


def compared(random: np.random.Generator, share: float, noise: float, images: int = 8) -> list[Compared]:
    """Tokens of several images, of which the written weights keep a share; each image has its own chance."""
    found = []
    for _ in range(images):
        began, learnt = -random.exponential(2, 60), random.normal(size=60)
        chance = noise * random.normal() * learnt + 0.1 * noise * random.normal(size=60)
        found.append(Compared(began + learnt, began + share * learnt + chance, began))
    return found


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_is_the_slope_of_least_squares_and_its_error_that_of_many_draws(share: float) -> None:
    random = np.random.default_rng(0)
    draws = [compared(random, share, noise=0.5) for _ in range(400)]
    rows = draws[0]
    learnt, written = (np.concatenate([getattr(r, name) - r.began for r in rows]) for name in ("policy", "written"))
    expected = np.linalg.lstsq(learnt[:, None], written, rcond=None)[0][0]
    assert kept.share_kept(rows)[0] == pytest.approx(expected)
    shares, errors = np.array([kept.share_kept(each) for each in draws]).T
    assert shares.mean() == pytest.approx(share, abs=0.05)
    assert errors.mean() == pytest.approx(shares.std(), rel=0.25)


def test_what_was_not_learnt_cannot_be_lost() -> None:
    began = np.array([-1.0, -2.0])
    assert kept.share_kept([Compared(began, began + 0.1, began)]) == (1.0, 0.0)


def test_the_distance_is_the_mean_of_the_ratios() -> None:
    found = [Compared(np.log([0.5, 0.2]), np.log([0.25, 0.2]), np.zeros(2)), Compared(*[np.log([0.1])] * 3)]
    assert kept.apart(found) == pytest.approx(1 / 3)
    assert not kept.criteria([Compared(np.zeros(1), np.full(1, -1e4), np.zeros(1))], **LIMITS)[0].passed


@pytest.mark.parametrize(
    ("share", "noise", "passed"),
    [(1.0, 0.0, True), (1.0, 0.02, True), (0.95, 0.02, True), (0.6, 0.02, False), (0.0, 0.02, False), (0.0, 5.0, True)],
)
def test_a_share_that_is_too_small_is_refused_unless_it_may_be_chance(share: float, noise: float, passed: bool) -> None:
    found = kept.criteria(compared(np.random.default_rng(1), share, noise), **LIMITS)[1]
    assert found.passed == passed
    assert f"keep {found.after:.0%} of what was learnt (--gate-kept asks for 80%)" in found.reason


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept")
    deep_checkpoint(path / "checkpoint", layers=2)
    return path


def learnt(kind: str, folder: Path, rms: float) -> Policy:
    """A policy whose weights have moved by so much, over bfloat16 weights of rms 0.06."""
    torch.manual_seed(1)
    if kind == "full":
        full = FullPolicy(folder / "checkpoint", PLAIN)
        with torch.no_grad():
            for tensor in full.trainable():
                tensor.add_(rms * torch.randn_like(tensor))
        return full
    lora = LoraPolicy(folder / "checkpoint", PLAIN, rank=4, seed=0)
    for _, layer in adapted_layers(lora.network.model):
        give_update(layer, rms)
    return lora


def criteria(policy: Policy, folder: Path, to: Path) -> dict[str, Any]:
    shown = {str(seed): picture(seed, 112, 84 + 28 * (seed % 2)) for seed in range(4)}
    random = np.random.default_rng(0)
    rollouts = [rollout(image, random, folder / "checkpoint") for image in shown.values()]
    policy.save_checkpoint(to)
    found = Learner(policy, EvolveSettings(pool=to, run=to)).compare(to, shown, rollouts)
    return {each.name: each for each in kept.criteria(found, **LIMITS)}


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_weights_as_they_are_written_pass_the_gate(folder: Path, tmp_path: Path, kind: str) -> None:
    found = criteria(learnt(kind, folder, 3e-4), folder, tmp_path)
    assert all(each.passed for each in found.values())
    assert found["weights as written: share of what was learnt"].after == pytest.approx(1, abs=0.25)
    assert 1e-4 < found["weights as written: |ratio - 1|"].after < 0.1


def test_a_near_copy_of_the_base_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nearest(values: Tensor, dtype: torch.dtype, **_: object) -> Tensor:
        return values.to(dtype)

    monkeypatch.setattr(policies, "rounded", nearest)
    found = criteria(learnt("lora", folder, 1.5e-5), folder, tmp_path)["weights as written: share of what was learnt"]
    assert not found.passed
    assert found.after < 0.5


def test_weights_that_do_not_belong_to_the_policy_are_refused(folder: Path, tmp_path: Path) -> None:
    policy = learnt("lora", folder, 3e-4)
    policy.network.model.lm_head.weight.data.mul_(1.5)  # what is written does not know this
    found = criteria(policy, folder, tmp_path)["weights as written: |ratio - 1|"]
    assert not found.passed
    assert "answer otherwise than the policy that was judged" in found.reason
