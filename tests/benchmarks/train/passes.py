"""Log-probability and gradient passes over one picture's K answers: shared against repeated prefix, and their FLOPs.

The passes are timed on the embedded checkpoint with one thread, vision tower included: a prompt of 310 tokens, 256 of
them visual, and answers of 6. Both must first give the same log-probabilities and gradients.

FLOPs of the matrix products of an update, 2 per multiply-add. For a Qwen2.5-VL with h = hidden size, i = intermediate
size, keys = width of all heads' keys; for one picture of n patches, P prompt tokens, K answers of T tokens. The shared
prefix computes one picture and P + K (T - 1) language tokens; the repeated prefix K pictures and K (P + T) tokens.

    vision      n (depth (8 h^2 + 6 h i) + patch embedding) + n/4 merger; attention 4 h n^2, or 4 h n w in windows of w
    language    per token and layer: 4 h^2 + 4 h keys + 6 h i; attention 4 h per key seen
    head        2 h vocabulary, for the answers' tokens (repeated prefix: and one more each)

Backward: twice the forward pass where weights are trained (full), once where only activations carry the gradient
(LoRA: language model and head), none for a frozen tower. The reference is one more forward pass; with LoRA it is fed
the same visual tokens. Adapters, norms, softmax and the optimizer are left out: below 1 %.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, PreTrainedModel

from service.prompts import PROFILES
from trainer.training.logprobs import AnswerLogprobs
from trainer.training.network import encode_scores
from trainer.training.policy import LoraPolicy

Kind = Literal["lora", "full"]
Prefix = Literal["shared", "repeated"]
PROMPT, VISUAL_TOKENS, ANSWER = 310, 256, 6
_MERGE = 2
REPEATS, THREADS, RANK = 7, 1, 32
Pass = Callable[[], tuple[Tensor, Tensor]]
"""Forward and backward: (K, T) log-probabilities and the gradient, flat."""


@dataclass(frozen=True, slots=True)
class Forward:
    """FLOPs of one forward pass."""

    vision: float
    vision_attention: float
    language: float
    language_attention: float
    head: float

    @property
    def all_vision(self) -> float:
        """The tower and its merger."""
        return self.vision + self.vision_attention

    @property
    def all_language(self) -> float:
        """Layers and head."""
        return self.language + self.language_attention + self.head


def forward_flops(config: Any, prefix: Prefix, *, patches: int, prompt: int, samples: int, answer: int) -> Forward:
    """FLOPs of one picture and its answers."""
    pictures = 1 if prefix == "shared" else samples
    if prefix == "shared":
        tokens, scored = prompt + samples * (answer - 1), samples * (answer - 1) + 1
        seen = prompt * (prompt + 1) / 2 + samples * sum(prompt + place + 1 for place in range(answer - 1))
    else:
        tokens, scored = samples * (prompt + answer), samples * (answer + 1)
        seen = samples * (prompt + answer) * (prompt + answer + 1) / 2
    return Forward(
        pictures * _vision(config.vision_config, patches),
        pictures * _vision_attention(config.vision_config, patches),
        tokens * _language_token(config.text_config),
        4 * config.text_config.num_hidden_layers * config.text_config.hidden_size * seen,
        2 * scored * config.text_config.hidden_size * config.text_config.vocab_size,
    )


def step_flops(config: Any, kind: Kind, prefix: Prefix, **shape: int) -> float:
    """FLOPs of one picture's part of an update: forward, backward and reference pass."""
    once = forward_flops(config, prefix, **shape)
    if kind == "full":
        return 4 * (once.all_vision + once.all_language)
    tower = 1 if prefix == "shared" else 2
    return tower * once.all_vision + 3 * once.all_language


def _vision(config: Any, patches: int) -> float:
    width, merged = config.hidden_size, config.spatial_merge_size**2
    embedding = 2 * width * config.in_channels * config.temporal_patch_size * config.patch_size**2
    layer = 8 * width**2 + 6 * width * config.intermediate_size
    merger = 2 * merged * width * (merged * width + config.out_hidden_size) / merged
    return patches * (embedding + config.depth * layer + merger)


def _vision_attention(config: Any, patches: int) -> float:
    window = min(patches, (config.window_size // config.patch_size) ** 2)
    whole = len(config.fullatt_block_indexes)
    return 4 * config.hidden_size * patches * (whole * patches + (config.depth - whole) * window)


def _language_token(config: Any) -> float:
    width, head = config.hidden_size, config.hidden_size // config.num_attention_heads
    attention = 2 * width * (2 * width + 2 * config.num_key_value_heads * head)
    return config.num_hidden_layers * (attention + 6 * width * config.intermediate_size)


def random_prompt(config: Any, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> BatchFeature:
    """A random picture of 448 px (14 px per patch) and random text: 310 tokens, 256 of them visual."""
    side = int(VISUAL_TOKENS**0.5) * _MERGE
    text = torch.randint(7, config.text_config.vocab_size, (PROMPT - VISUAL_TOKENS - 2,))
    visual = torch.full((VISUAL_TOKENS,), config.image_token_id)
    marks = torch.tensor([[config.vision_start_token_id], [config.vision_end_token_id]])
    text[torch.isin(text, torch.tensor([config.image_token_id, config.video_token_id, *marks]))] = 0
    ids = torch.cat([marks[0], visual, marks[1], text])[None]
    encoded = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == config.image_token_id).long(),
        "pixel_values": torch.randn(side**2, 3 * 2 * config.vision_config.patch_size**2, dtype=dtype),
        "image_grid_thw": torch.tensor([[1, side, side]]),
    }
    return BatchFeature(encoded).to(device)


def random_answers(config: Any, samples: int, device: torch.device | str = "cpu") -> Tensor:
    """(K, 6) random token ids."""
    return torch.randint(7, config.text_config.vocab_size // 2, (samples, ANSWER), device=device)


def shared(
    model: PreTrainedModel, logprobs: AnswerLogprobs, prompt: BatchFeature, answers: Tensor, *, vision_gradient: bool
) -> Tensor:
    """(K, T) log-probabilities as this trainer computes them: picture and prompt once."""
    profile = PROFILES["plain"]
    picture = Image.new("RGB", (1, 1))
    [encoded] = encode_scores(model.model, _Encoded(prompt), profile, [picture], gradient=vision_gradient)
    return logprobs([encoded], [answers.tolist()]).chosen[0]


def repeated(model: PreTrainedModel, prompt: BatchFeature, answers: Tensor) -> Tensor:
    """(K, T) log-probabilities as public GRPO trainers compute them: every answer with its own prompt and picture."""
    rows = len(answers)
    ids = torch.cat([prompt["input_ids"].repeat(rows, 1), answers], 1)
    output = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=torch.cat([prompt["mm_token_type_ids"].repeat(rows, 1), torch.zeros_like(answers)], 1),
        pixel_values=prompt["pixel_values"].repeat(rows, 1),
        image_grid_thw=prompt["image_grid_thw"].repeat(rows, 1),
        use_cache=False,
        logits_to_keep=answers.shape[1] + 1,
    )
    return output.logits[:, :-1].float().log_softmax(-1).gather(-1, answers[..., None])[..., 0]


class _Encoded:
    """Replaces the processor: returns a prompt of this length without decoding a picture."""

    def __init__(self, prompt: BatchFeature) -> None:
        self._prompt = prompt

    def apply_chat_template(self, *_: Any, **__: Any) -> str:
        return ""

    def __call__(self, **_: Any) -> BatchFeature:
        return self._prompt


@dataclass(frozen=True, slots=True)
class Comparison:
    """Median seconds of both passes, and the differences of their results."""

    samples: int
    shared: float
    repeated: float
    ratio: float
    """Repeated over shared."""
    logprob_difference: float
    gradient_difference: float
    """Relative, in the Euclidean norm."""


def compare_passes(checkpoint: Path) -> list[Comparison]:
    """At K = 8 and K = 32. Raises AssertionError if the two ways differ by more than 1e-4, or 1e-3 relative."""
    torch.set_num_threads(THREADS)
    policy = LoraPolicy(checkpoint, PROFILES["plain"], rank=RANK, seed=0)
    with torch.no_grad():
        for tensor in policy.trainable():  # half of a fresh adapter has no gradient
            tensor.add_(0.02 * torch.randn_like(tensor))
    return [_compare(policy, samples) for samples in (8, 32)]


def _compare(policy: LoraPolicy, samples: int) -> Comparison:
    model = policy.network.model
    prompt, answers = random_prompt(model.config), random_answers(model.config, samples)
    advantages = torch.randn(samples, 1)
    logprobs = AnswerLogprobs(model.model.language_model, model.lm_head)

    def shared_pass() -> tuple[Tensor, Tensor]:
        return _backward(policy, shared(model, logprobs, prompt, answers, vision_gradient=False), advantages)

    def repeated_pass() -> tuple[Tensor, Tensor]:
        return _backward(policy, repeated(model, prompt, answers), advantages)

    (found, gradient), (expected, reference) = shared_pass(), repeated_pass()
    apart = float((found - expected).abs().max())
    relative = float((gradient - reference).norm() / reference.norm())
    assert apart < 1e-4, f"the log-probabilities are {apart} apart"
    assert relative < 1e-3, f"the gradients are {relative} apart"
    fast, slow = _medians([shared_pass, repeated_pass])
    return Comparison(samples, fast, slow, slow / fast, apart, relative)


def _backward(policy: LoraPolicy, logprobs: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
    """Forward and backward pass of the GRPO loss at ratio 1."""
    for tensor in policy.trainable():
        tensor.grad = None
    torch.autograd.backward(-(logprobs * advantages).mean())
    return logprobs.detach(), torch.cat([tensor.grad.flatten() for tensor in policy.trainable()])


def _medians(passes: list[Pass]) -> list[float]:
    """Seconds, measured in turn so that a slow minute hits all of them."""
    times: list[list[float]] = [[] for _ in passes]
    for _ in range(REPEATS):
        for one, taken in zip(passes, times, strict=True):
            began = time.perf_counter()
            one()
            taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in times]
