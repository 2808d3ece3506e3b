"""The log-probability and gradient pass over one picture's K answers: shared prefix against repeated prefix.

A prompt of 310 tokens, 256 of them visual, and answers of 6, on the embedded checkpoint's weights; vision tower
included, one thread. Both are checked to give the same log-probabilities and gradients before they are timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from service.prompts import PROFILES
from tests.benchmarks.train.ways import random_answers, random_prompt, repeated, shared
from trainer.training.logprobs import AnswerLogprobs
from trainer.training.policy import LoraPolicy

REPEATS, THREADS, RANK = 7, 1, 32

Pass = Callable[[], tuple[Tensor, Tensor]]
"""Forward and backward: (K, T) log-probabilities and the gradient, flat."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Median seconds of both passes, and how far apart their results were."""

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
    """The GRPO loss where the ratio is 1."""
    for tensor in policy.trainable():
        tensor.grad = None
    torch.autograd.backward(-(logprobs * advantages).mean())
    return logprobs.detach(), torch.cat([tensor.grad.flatten() for tensor in policy.trainable()])


def _medians(passes: list[Pass]) -> list[float]:
    """Seconds, in turn: a slow minute meets all of them."""
    times: list[list[float]] = [[] for _ in passes]
    for _ in range(REPEATS):
        for one, taken in zip(passes, times, strict=True):
            began = time.perf_counter()
            one()
            taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in times]
