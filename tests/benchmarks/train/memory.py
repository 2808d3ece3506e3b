"""Peak memory of a pass by vocabulary and answer length: the head chunk by chunk, and all logits at once.

The pass is a forward and backward pass with an adapter, float32, over the answers to one picture; the model has the
embedded shape and random weights, with as many words as asked. Both ways must give the same gradients.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from service.prompts import PROFILES
from tests.benchmarks.checkpoint.architecture import build_config, build_processor, save_checkpoint
from tests.benchmarks.scale.logits import Head, plain_logprobs
from trainer.demo.contents import content
from trainer.training.chunked_head import token_logprobs
from trainer.training.device_memory import peak_bytes
from trainer.training.logprobs import padded
from trainer.training.policy import LoraPolicy
from trainer.training.shared_prefix import shared_states

VOCABULARIES, LENGTHS = (2_048, 32_768, 152_064), (8, 64, 512)
SAMPLES, RANK = 2, 32
CLOSE = 1e-5


@dataclass(frozen=True, slots=True)
class Peak:
    """Bytes of a pass beyond the weights, and how far the gradients of both ways are apart."""

    vocabulary: int
    answer: int
    chunked: int
    plain: int
    gradient_difference: float
    """Relative, in the Euclidean norm."""


def measure_memory() -> list[Peak]:
    """All vocabularies and lengths. Raises AssertionError if the gradients differ by more than 1e-5."""
    found = []
    for vocabulary in VOCABULARIES:
        with tempfile.TemporaryDirectory() as folder:
            policy = made(vocabulary, Path(folder))
        found += [compare(policy, vocabulary, length) for length in LENGTHS]
    return found


def made(vocabulary: int, folder: Path) -> LoraPolicy:
    """A policy of so many words, whose adapter does something."""
    processor = build_processor()
    config = build_config(processor.tokenizer)
    config.text_config.vocab_size = vocabulary
    torch.manual_seed(0)
    save_checkpoint(Qwen2_5_VLForConditionalGeneration(config), processor, folder)
    policy = LoraPolicy(folder, PROFILES["plain"], rank=RANK, seed=0)
    with torch.no_grad():
        for tensor in policy.trainable():  # half of a fresh adapter has no gradient
            tensor.add_(0.02 * torch.randn_like(tensor))
    return policy


def compare(policy: LoraPolicy, vocabulary: int, length: int) -> Peak:
    """Both ways over the same random answers."""
    answers = torch.randint(7, vocabulary, (SAMPLES, length)).tolist()
    chunked, plain = (_measured(policy, answers, head) for head in (token_logprobs, plain_logprobs))
    apart = float((chunked[1] - plain[1]).norm() / plain[1].norm())
    assert apart <= CLOSE, f"with {vocabulary} words and answers of {length} tokens the gradients are {apart} apart"
    return Peak(vocabulary, length, chunked[0], plain[0], apart)


def _measured(policy: LoraPolicy, answers: list[list[int]], head: Head) -> tuple[int, Tensor]:
    """The peak of a pass, and its gradient, flat."""
    found = list[Tensor]()

    def work() -> None:
        model = policy.network.model
        tokens, mask = padded([answers], torch.device("cpu"))
        prompts = policy.network.encode([content("pool", 0)])
        hidden, rows = shared_states(model.model.language_model, prompts, tokens, mask)
        chosen, _ = head(hidden, model.lm_head.weight, rows[mask], tokens[mask])
        found.extend(torch.autograd.grad((chosen * torch.linspace(-1, 2, len(chosen))).sum(), policy.trainable()))

    peak = peak_bytes(work, torch.device("cpu"))
    return peak, torch.cat([gradient.flatten() for gradient in found])
