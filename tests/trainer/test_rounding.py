"""Stochastic rounding against float64, and the weights that policies write by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.benchmarks.scale.bf16 import deep_checkpoint, merge_kept
from tests.trainer.vision_models import PLAIN, embedded_shape
from trainer.training.network import load_model
from trainer.training.policy import FullPolicy, LoraPolicy
from trainer.training.rounding import rounded

BF16 = torch.bfloat16


def neighbours(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The bfloat16 on either side of each value, by arithmetic: 8 significant bits, exponents from -126."""
    unit = 2.0 ** (np.maximum(np.floor(np.log2(np.abs(values))), -126) - 7)
    return np.floor(values / unit) * unit, np.ceil(values / unit) * unit


def test_each_value_goes_to_either_neighbour_as_often_as_it_is_near() -> None:
    random = np.random.default_rng(0)
    given = random.normal(size=400) * 10.0 ** random.integers(-40, 30, 400)
    values = torch.tensor(given, dtype=torch.float32)
    exact, draws = values.double().numpy(), 2000
    below, above = neighbours(exact)
    found = torch.stack([rounded(values, BF16, seed=seed, name="w") for seed in range(draws)]).double().numpy()
    assert ((found == below) | (found == above)).all()
    gap = np.where(above > below, above - below, 1)
    expected = (exact - below) / gap
    deviation = np.sqrt(expected * (1 - expected) / draws) + 1e-3 / draws**0.5
    scores = (((found - below) / gap).mean(0) - expected) / deviation
    assert np.abs(scores).max() < 5
    assert abs(scores.mean()) < 5 / len(scores) ** 0.5


def test_what_a_bfloat16_can_hold_stays_and_infinity_and_nan_too() -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(BF16)
    for seed in range(3):
        found = rounded(every.float(), BF16, seed=seed, name="w")
        assert torch.equal(found.isnan(), every.isnan())
        assert torch.equal(found[~every.isnan()].view(torch.int16), every[~every.isnan()].view(torch.int16))
    odd = torch.tensor([0x7F800001, -1, 0x7FFFFFFF], dtype=torch.int32).view(torch.float32)
    assert rounded(odd, BF16, seed=0, name="w").isnan().all(), "any NaN"


def test_seed_and_name_decide_and_nothing_else() -> None:
    values = torch.randn(3, 70_000)
    found = rounded(values, BF16, seed=1, name="w")
    assert found.shape == values.shape
    assert torch.equal(found, rounded(values.T.contiguous().T, BF16, seed=1, name="w"))
    assert torch.equal(found[0, :100], rounded(values[0, :100], BF16, seed=1, name="w"))
    assert not torch.equal(found, rounded(values, BF16, seed=2, name="w"))
    assert not torch.equal(found, rounded(values, BF16, seed=1, name="v"))
    far = found.float() - values
    assert abs(np.corrcoef(far[0], far[1])[0, 1]) < 0.02, "each weight draws for itself"


def test_a_weight_that_moves_on_is_never_taken_back() -> None:
    start = torch.rand(1000) + 1
    path = torch.stack([rounded(start + step * 5e-4, BF16, seed=0, name="w") for step in range(40)])
    assert (path.diff(dim=0) >= 0).all()
    assert torch.equal(path[0], rounded(start, BF16, seed=0, name="w"))


def test_a_product_with_rounded_weights_stays_near_the_exact_one_and_has_no_drift() -> None:
    torch.manual_seed(0)
    weights = torch.rand(64, 4096, dtype=torch.float64) * 2**-14 + 1 + 2**-10  # to the nearest, all go down to 1
    exact = weights.sum(1)
    apart = rounded(weights.float(), BF16, seed=0, name="w").double().sum(1) - exact
    assert (weights.to(BF16).double().sum(1) - exact).mean() < -4
    deviation = 2**-7 * (4096 * 1 / 8 * 7 / 8) ** 0.5  # of a row: an eighth of its weights go up by 2^-7
    assert abs(apart.mean()) < 5 * deviation / 8
    assert apart.std() == pytest.approx(deviation, rel=0.5)


def test_other_types_are_rounded_to_the_nearest_or_not_at_all() -> None:
    values = torch.randn(100)
    assert rounded(values, torch.float32, seed=0, name="w") is values
    assert torch.equal(rounded(values, torch.float16, seed=0, name="w"), values.half())
    assert torch.equal(rounded(values.to(BF16), torch.float32, seed=0, name="w"), values.to(BF16).float())


def test_a_merge_into_bfloat16_keeps_a_small_update(tmp_path: Path) -> None:
    found = merge_kept(deep_checkpoint(tmp_path / "base", layers=2), tmp_path / "merged")
    assert found["merge_kept"] == pytest.approx(1, abs=0.03)
    assert found["nearest_kept"] < 0.8


def moved(policy: FullPolicy | LoraPolicy) -> FullPolicy | LoraPolicy:
    """After steps of a small learning rate."""
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in policy.trainable():
            tensor.add_(1e-4 * torch.randn_like(tensor))
    return policy


def test_all_weights_keep_small_steps_in_bfloat16_and_frozen_ones_stay(tmp_path: Path) -> None:
    base = deep_checkpoint(tmp_path / "base", layers=2)
    policy = moved(FullPolicy(base, PLAIN, seed=3))
    for name in ("one", "same"):
        policy.hand_over(tmp_path / name)
    (tmp_path / "one" / "config.json").write_bytes((base / "config.json").read_bytes())
    before, one, same = (dict(load_model(tmp_path / name, BF16).named_parameters()) for name in ("base", "one", "same"))
    assert all(torch.equal(one[name], same[name]) for name in one), "candidate and rollouts are one"
    sums = np.zeros(2)
    for name, master in policy.network.model.named_parameters():
        update = (master - before[name].float()).detach()
        written = (one[name].float() - before[name].float()).detach()
        assert update.any() == master.requires_grad
        assert master.requires_grad or not written.any()
        sums += [float((update * each).sum()) for each in (update, written)]
    assert sums[1] / sums[0] == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("served", ["float32", "bfloat16", "auto"])
def test_a_float32_checkpoint_is_written_as_the_engine_will_read_it(tmp_path: Path, kind: str, served: str) -> None:
    base = embedded_shape(tmp_path / "base")
    made = (
        FullPolicy(base, PLAIN, served=served)
        if kind == "full"
        else LoraPolicy(base, PLAIN, rank=4, seed=0, served=served)
    )
    moved(made)
    made.save_checkpoint(tmp_path / "saved")
    written = dict(load_model(tmp_path / "saved", "auto").named_parameters())
    assert {tensor.dtype for tensor in written.values()} == {torch.float32}
    trained = {name.removeprefix("model.") for name, each in made.network.named_parameters() if each.requires_grad}
    if kind == "lora":
        trained = {f"{name.partition('.lora_')[0]}.weight" for name in trained}
    assert trained
    kept = [torch.equal(each, each.to(BF16).float()) for name, each in written.items() if name in trained]
    assert all(kept) if served != "float32" else not any(kept)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_written_weights_can_be_loaded_back_into_the_policy_that_wrote_them(tmp_path: Path, kind: str) -> None:
    base = deep_checkpoint(tmp_path / "base", layers=1)
    made = FullPolicy(base, PLAIN) if kind == "full" else LoraPolicy(base, PLAIN, rank=4, seed=0)
    moved(made).save_checkpoint(tmp_path / "saved")
    for folder in ("saved", "base"):
        made.load_weights(tmp_path / folder)
        found = {name.replace(".base_layer", ""): each for name, each in made.network.named_parameters(prefix="")}
        for name, tensor in load_model(tmp_path / folder, torch.float32).named_parameters(prefix="model"):
            assert torch.equal(found[name], tensor), name
