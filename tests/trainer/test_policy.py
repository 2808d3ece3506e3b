"""The torch policy on a random checkpoint of the embedded shape: its adapter, its reference, its checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from service.versions.contents import hashes
from service.versions.preflight import check_weights, form
from tests.trainer.vision_models import PLAIN, adapted, embedded_shape, picture, plain_logprobs
from trainer.training.policy import LoraPolicy

ANSWERS = [[300, 301, 302, 303, 2], [300, 301, 2], [310, 2], [311]]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """More of them wait for each other longer than they work on so small a model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedded_shape(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return picture(0, 84, 112)


@pytest.fixture
def policy(checkpoint: Path) -> LoraPolicy:
    return adapted(checkpoint)


def test_the_reference_is_the_checkpoint_itself(policy: LoraPolicy, checkpoint: Path, image: Image.Image) -> None:
    prompt = policy.network.encode([image])[0]
    with torch.no_grad(), policy.reference():
        found = policy.network.logprobs([prompt], [ANSWERS[:1]]).chosen[0]
    base = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype="auto", trust_remote_code=False)
    expected = plain_logprobs(base, checkpoint, image, ANSWERS[0])
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=0)
    assert (policy.network.logprobs([prompt], [ANSWERS[:1]]).chosen[0] - found).abs().max() > 1e-3


def test_the_merged_checkpoint_answers_as_the_adapter_does(
    policy: LoraPolicy, image: Image.Image, checkpoint: Path, tmp_path: Path
) -> None:
    with torch.no_grad():
        found = policy.network.logprobs([policy.network.encode([image])[0]], [ANSWERS[:1]]).chosen[0]
    policy.save_checkpoint(tmp_path)
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype="auto", trust_remote_code=False)
    torch.testing.assert_close(found[0], plain_logprobs(merged, tmp_path, image, ANSWERS[0]), atol=1e-5, rtol=0)


def test_a_candidate_has_what_its_checkpoint_has_but_for_what_no_engine_reads(checkpoint: Path, tmp_path: Path) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "source")
    for name in ("original/params.json", "checkpoint-500/model.safetensors", "pytorch_model.bin", "a.safetensors"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / "model.safetensors", source / name)
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tools.jinja").write_text("{{ tools }}")
    LoraPolicy(source, PLAIN, rank=8, seed=0).save_checkpoint(tmp_path / "candidate")
    assert hashes(tmp_path / "candidate").keys() == hashes(source).keys()
    check_weights(tmp_path / "candidate", form(source))


def test_the_adapters_state_is_taken_over_exactly(policy: LoraPolicy, checkpoint: Path, image: Image.Image) -> None:
    other = LoraPolicy(checkpoint, PLAIN, rank=8, seed=5)
    other.set_state({name: tensor.clone() for name, tensor in policy.state().items()})
    prompts = [policy.network.encode([image])[0]]
    assert torch.equal(
        policy.network.logprobs(prompts, [ANSWERS]).chosen, other.network.logprobs(prompts, [ANSWERS]).chosen
    )


def test_vision_tower_and_embeddings_are_frozen(policy: LoraPolicy) -> None:
    names = [name for name, parameter in policy._peft.named_parameters() if parameter.requires_grad]
    assert names
    assert all("language_model" in name and "lora" in name for name in names)


def test_pictures_are_scaled_to_the_engines_limits(checkpoint: Path, image: Image.Image) -> None:
    def visual_tokens(**pixels: int | None) -> int:
        policy = LoraPolicy(checkpoint, PLAIN, rank=8, seed=0, pixels=pixels)
        return policy.network.encode([image])[0].token_ids.count(policy.network.model.config.image_token_id)

    own = visual_tokens(min_pixels=None, max_pixels=None)
    assert own == (84 // 28) * (112 // 28)
    assert visual_tokens(max_pixels=56 * 56) < own
    assert visual_tokens(min_pixels=224 * 224, max_pixels=448 * 448) > own
