"""The self-check: which way of computing log-probabilities is taken, and which models are refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from tests.benchmarks.scale.bf16 import deep_checkpoint, shared_prefix_taken
from tests.trainer.vision_models import PLAIN, SHAPES, picture, plain_logprobs, qwen2_vl, qwen3_vl
from trainer.errors import UnsupportedModel
from trainer.training import network, self_check, shared_prefix
from trainer.training.distributed import process_group
from trainer.training.logprobs import Logprobs
from trainer.training.policy import FullPolicy, LoraPolicy
from trainer.training.precise import Float32
from trainer.training.self_check import SHARED

PICTURE = picture(0, 112, 112)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logits as wide as those of a large model."""
    return deep_checkpoint(tmp_path_factory.mktemp("deep"), layers=2)


@pytest.fixture(scope="module")
def policy(checkpoint: Path) -> LoraPolicy:
    """In bfloat16."""
    return LoraPolicy(checkpoint, PLAIN, rank=4, seed=0, dtype=torch.bfloat16)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_right_model_takes_the_shared_prefix(tmp_path: Path, shape: str) -> None:
    found = FullPolicy(SHAPES[shape](tmp_path), PLAIN).self_check(PICTURE)
    assert (found.way, found.rejected) == (SHARED, {})
    assert found.exact == found.rounded
    assert found.exact.mean < 1e-4
    assert found.noise == (0, 0)


def test_noise_of_bfloat16_is_no_reason_to_give_it_up(tmp_path: Path) -> None:
    found = shared_prefix_taken(deep_checkpoint(tmp_path, layers=8, deviation=8))
    assert found["shared_prefix_taken"]
    measured = found["self_check"]
    assert measured["noise"]["high"] > 0.1, "what one once gave it up for"
    assert measured["exact"]["mean"] < 1e-4, "and in float32 it is the same"


def test_float32_over_bfloat16_weights_gives_what_a_float32_model_with_these_values_does(checkpoint: Path) -> None:
    half, whole = (
        AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=dtype, trust_remote_code=False)
        for dtype in (torch.bfloat16, torch.float32)
    )
    answer = list(range(100, 180))
    with torch.no_grad():
        rounded, expected = (plain_logprobs(model, checkpoint, PICTURE, answer) for model in (half, whole))
        with Float32():
            found = plain_logprobs(half, checkpoint, PICTURE, answer)
    assert found.dtype == torch.float32
    assert (found - expected).abs().mean() < 0.2 * (rounded - expected).abs().mean()  # the pixels are rounded
    assert next(half.parameters()).dtype == torch.bfloat16


def shifted(prompts: object, followed: Tensor) -> Tensor:
    """Answers one place too late."""
    found = POSITIONS(prompts, followed)
    found[..., found.shape[-1] - int(followed.sum()) :] += 1
    return found


def blind(lengths: Tensor, followed: Tensor) -> shared_prefix.Layout:
    """Every answer sees the others."""
    layout = LAYOUT(lengths, followed)
    return layout._replace(visible=torch.ones_like(layout.visible))


def forgetful(lengths: Tensor, followed: Tensor) -> shared_prefix.Layout:
    """Answers do not see the prompt's first token."""
    layout = LAYOUT(lengths, followed)
    layout.visible[..., 0] = False
    return layout


def raising(*_: object) -> shared_prefix.Layout:
    raise KeyError("linear_attention")


POSITIONS, LAYOUT = shared_prefix._positions, shared_prefix._layout
FAULTS: dict[str, tuple[str, Callable[..., object], str]] = {
    "positions": ("_positions", shifted, "in float32 it is 0."),
    "all visible": ("_layout", blind, "in float32 it is "),
    "a token unseen": ("_layout", forgetful, "in float32 it is "),
    "raises": ("_layout", raising, "it raises KeyError: 'linear_attention'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_shared_prefix_that_is_wrong_gives_way_to_the_plain_one_with_the_reason(
    policy: LoraPolicy, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    name, wrong, said = FAULTS[fault]
    monkeypatch.setattr(shared_prefix, name, wrong)
    found = policy.self_check(PICTURE)
    assert found.way == "repeated prefix"
    assert said in found.rejected[SHARED]
    shown = [[300, 301, 302], [17, 18]]
    chosen = policy.network.logprobs(policy.network.encode([PICTURE]), [shown]).chosen[0]
    assert torch.isfinite(chosen).all(), "and the plain one is used"


def test_in_float32_too(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_prefix, "_positions", shifted)
    found = LoraPolicy(checkpoint, PLAIN, rank=4, seed=0).self_check(PICTURE)
    assert list(found.rejected) == [SHARED]


@pytest.mark.parametrize("nats", [0.4, 0.01])
def test_a_model_of_which_no_way_gives_its_own_log_probabilities_is_refused(
    policy: LoraPolicy, monkeypatch: pytest.MonkeyPatch, nats: float
) -> None:
    """Features of the picture that are left out show so: both ways agree with each other."""
    right = self_check.answer_logprobs

    def off(*given: object) -> Logprobs:
        found = right(*given)
        return found._replace(chosen=found.chosen + nats)

    monkeypatch.setattr(self_check, "answer_logprobs", off)
    with pytest.raises(UnsupportedModel, match=r"Qwen2_5_VL\w+ as .*; repeated prefix: in float32 it is 0\.\d+ nats"):
        policy.self_check(PICTURE)


def test_a_model_with_features_that_the_trainer_drops_is_refused(tmp_path: Path) -> None:
    """Qwen3-VL adds features of the vision tower to the language model's layers."""
    with pytest.raises(
        UnsupportedModel, match=r"shared prefix: it raises .*; repeated prefix: in float32 it is 0\.\d+ nats"
    ):
        LoraPolicy(qwen3_vl(tmp_path), PLAIN, rank=4, seed=0).self_check(PICTURE)


def test_an_earlier_architecture_of_the_same_parts_passes(tmp_path: Path) -> None:
    assert LoraPolicy(qwen2_vl(tmp_path), PLAIN, rank=4, seed=0).self_check(PICTURE).way == SHARED


def test_a_model_of_other_parts_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    text = {
        "num_hidden_layers": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "vocab_size": 99,
    }
    vision = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    config = SmolVLMConfig(text_config={"model_type": "llama", **text}, vision_config=vision)
    SmolVLMForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match=r"SmolVLM.* it has no language_model, visual"):
        network.load_model(tmp_path, "auto")


def test_a_lack_of_memory_is_no_fault_of_the_shared_prefix(policy: LoraPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(shared_prefix, "_layout", full)
    with pytest.raises(torch.OutOfMemoryError):
        policy.self_check(PICTURE)


def test_a_model_whose_own_pass_fails_is_refused(policy: LoraPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(self_check._CONTINUED, "mm_token_type_ids")
    with pytest.raises(UnsupportedModel, match="its own forward pass raises"):
        policy.self_check(PICTURE)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_weights_in_float32_that_compute_in_bfloat16_are_checked_too(checkpoint: Path, kind: str) -> None:
    with process_group("cpu", "bfloat16"):
        made = {"lora": partial(LoraPolicy, rank=4), "full": FullPolicy}[kind]
        found = made(checkpoint, PLAIN, seed=0, dtype=torch.bfloat16).self_check(PICTURE)
    assert (found.way, found.exact.mean < 1e-4 < found.noise.mean) == (SHARED, True)
