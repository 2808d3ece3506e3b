"""The torch policy on a random checkpoint of the embedded shape: fast paths against plain ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from service.prompts import PROFILES, chat_messages
from trainer.demo.architecture import build_model, build_processor, save_checkpoint
from trainer.training.policy import Policy

PLAIN = PROFILES["plain"]
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
    folder = tmp_path_factory.mktemp("checkpoint")
    processor = build_processor()
    save_checkpoint(build_model(processor, seed=0), processor, folder)
    return folder


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (84, 112, 3), dtype=np.uint8))


@pytest.fixture
def policy(checkpoint: Path) -> Policy:
    """With an adapter that does something: the fresh one is zero."""
    made = Policy(checkpoint, PLAIN, rank=8, seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in made.trainable():
            tensor.add_(0.05 * torch.randn_like(tensor))
    return made


def plain_logprobs(model: torch.nn.Module, checkpoint: Path, picture: Image.Image, answer: list[int]) -> Tensor:
    """One row, one answer, the model's own forward: no shared prefix, no cache."""
    processor = AutoProcessor.from_pretrained(checkpoint)
    text = processor.apply_chat_template(chat_messages("score", PLAIN), add_generation_prompt=True, tokenize=False)
    encoded = processor(text=[text], images=[picture], return_tensors="pt")
    length = encoded["input_ids"].shape[1]
    types = torch.cat([encoded["mm_token_type_ids"], torch.zeros((1, len(answer)), dtype=torch.long)], 1)
    logits = model(
        input_ids=torch.cat([encoded["input_ids"], torch.tensor([answer])], 1),
        mm_token_type_ids=types,
        pixel_values=encoded["pixel_values"],
        image_grid_thw=encoded["image_grid_thw"],
    ).logits
    return logits[0, length - 1 : -1].log_softmax(-1).gather(-1, torch.tensor(answer)[:, None])[:, 0]


def test_shared_prefix_log_probabilities_equal_the_plain_forward(
    policy: Policy, checkpoint: Path, picture: Image.Image
) -> None:
    found, mask = policy.logprobs(policy.encode("score", [picture]), ANSWERS)
    for row, answer in enumerate(ANSWERS):
        expected = plain_logprobs(policy._peft, checkpoint, picture, answer)
        torch.testing.assert_close(found[row, : len(answer)], expected, atol=1e-5, rtol=0)
        assert mask[row].tolist() == [1] * len(answer) + [0] * (5 - len(answer))
        assert (found[row, len(answer) :] == 0).all()


def test_shared_prefix_gradients_equal_the_plain_forwards(
    policy: Policy, checkpoint: Path, picture: Image.Image
) -> None:
    found, _ = policy.logprobs(policy.encode("score", [picture]), ANSWERS)
    shared = torch.autograd.grad(found.sum(), policy.trainable())
    total = sum(plain_logprobs(policy._peft, checkpoint, picture, answer).sum() for answer in ANSWERS)
    plain = torch.autograd.grad(total, policy.trainable())
    for one, other in zip(shared, plain, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm() + 1e-7


def test_the_reference_is_the_checkpoint_itself(policy: Policy, checkpoint: Path, picture: Image.Image) -> None:
    prompt = policy.encode("score", [picture])
    with torch.no_grad(), policy.reference():
        found, _ = policy.logprobs(prompt, ANSWERS[:1])
    base = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype="auto")
    expected = plain_logprobs(base, checkpoint, picture, ANSWERS[0])
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=0)
    assert (policy.logprobs(prompt, ANSWERS[:1])[0] - found).abs().max() > 1e-3


def test_the_merged_checkpoint_answers_as_the_adapter_does(
    policy: Policy, picture: Image.Image, checkpoint: Path, tmp_path: Path
) -> None:
    with torch.no_grad():
        found, _ = policy.logprobs(policy.encode("score", [picture]), ANSWERS[:1])
    policy.save_checkpoint(tmp_path)
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype="auto")
    torch.testing.assert_close(found[0], plain_logprobs(merged, tmp_path, picture, ANSWERS[0]), atol=1e-5, rtol=0)


def test_the_adapters_state_is_taken_over_exactly(policy: Policy, checkpoint: Path, picture: Image.Image) -> None:
    other = Policy(checkpoint, PLAIN, rank=8, seed=5)
    other.set_state({name: tensor.clone() for name, tensor in policy.state().items()})
    prompt = policy.encode("score", [picture])
    assert torch.equal(policy.logprobs(prompt, ANSWERS)[0], other.logprobs(prompt, ANSWERS)[0])


def test_vision_tower_and_embeddings_are_frozen(policy: Policy) -> None:
    names = [name for name, parameter in policy._peft.named_parameters() if parameter.requires_grad]
    assert names
    assert all("language_model" in name and "lora" in name for name in names)
