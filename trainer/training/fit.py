"""Fits a step into the device's memory: what goes into one pass, and whether activations are kept.

A pass holds bytes in proportion to its tokens, and some that do not grow with them. Three small passes with the
policy's own weights and pictures tell both; then the largest pass that a step may take is run itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.filesize import decimal

from evoquality.contract import Completion, RolloutResult
from trainer.errors import UserError
from trainer.settings.evolve import EvolveSettings
from trainer.training.device_memory import free_bytes, peak_bytes
from trainer.training.distributed import world_size
from trainer.training.learner import Learner
from trainer.training.passes import MOST_TOKENS, Pass, split, tokens_of
from trainer.training.sharding import own_bytes

_SHARE = {"cpu": 0.5, "cuda": 0.9}
"""Of the free memory. A machine's other processes grow; a GPU's allocator leaves gaps."""
_MEASURED_TOKENS = 2048
"""Of the answers in the first passes, about."""
_WORK = {"off": 3, "on": 4}
"""Forward and backward pass, in forward passes; and one more to compute activations again."""
_ONE = Pass([0], [[0]])
"""One answer to the largest picture."""
MEASURING: dict[str, Any] = {"tokens_per_pass": 2**40}
"""Settings of a learner to measure with: it cuts nothing."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What was chosen for a round's training, and the bytes that decided it."""

    device: str
    dtype: str
    gradient_checkpointing: str
    tokens_per_pass: int
    passes: int
    """Of a step whose answers are all as long as they may be, on each process."""
    held: int
    """Bytes of weights, gradients, the optimizer's moments and the frozen reference."""
    pass_bytes: int
    """Of the largest pass at its peak, measured, beyond that."""
    free: int
    """Bytes of the device that weights and passes may take."""

    def __str__(self) -> str:
        """A sentence for the log."""
        activations = "computed again" if self.gradient_checkpointing == "on" else "kept"
        held, pass_bytes, free = map(decimal, (self.held, self.pass_bytes, self.free))
        return (
            f"memory on {self.device}: weights, gradients and optimizer {held}, a pass {pass_bytes}, of {free}; "
            f"at most {self.tokens_per_pass:,} tokens a pass ({self.passes} a step), activations {activations}, "
            f"{self.dtype}"
        )


@dataclass(frozen=True, slots=True)
class Load:
    """The most that a step may consist of."""

    pictures: Sequence[Image.Image]
    """The group's on each process, the largest first."""
    samples: int
    """K"""
    answer: int
    """Tokens of the longest answer."""


def fit(learner: Learner, load: Load, settings: EvolveSettings) -> Fit:
    """Chooses what the settings leave open, so that a step takes the least work.

    Args:
        learner: one that trained nothing, of `MEASURING`; its activations are kept unless the settings forbid it.
        load: of the step.
        settings: the run's.

    Raises:
        UserError: not even one answer fits.
    """
    gauge = _Gauge(learner, load, settings)
    asked = settings.gradient_checkpointing
    found = list[Fit]()
    for way in ["off", "on"] if asked == "auto" else [asked]:
        if fits := gauge.fitted(way):
            found.append(fits)
            if _WORK[way] * gauge.work(fits.tokens_per_pass) <= _WORK["on"] * gauge.work(MOST_TOKENS):
                break  # the other way cannot take less
    if not found:
        raise UserError(
            f"one answer of {load.answer:,} tokens to one picture does not fit into the memory: {gauge.told}. Give "
            "smaller pictures (--pixels), --dtype bfloat16, more processes (torchrun) or a device with more memory"
        )
    return min(found, key=lambda each: _WORK[each.gradient_checkpointing] * gauge.work(each.tokens_per_pass))


class _Gauge:
    """Measures passes of a learner on rank 0; the other ranks run them too."""

    def __init__(self, learner: Learner, load: Load, settings: EvolveSettings) -> None:
        self._learner, self._load, self._settings = learner, load, settings
        self._device = torch.device(learner.policy.device)
        self._ids = [learner.policy.network.prompt_ids(picture) for picture in load.pictures]
        self._run(Pass([0], [[0, 1]]), answer=2)  # loads the reference
        weights, trained = (own_bytes(each) for each in (learner.policy.weights(), learner.policy.trainable()))
        self._held = weights + 3 * trained  # gradients and two moments
        self._free = weights + free_bytes(self._device)
        self._room = int(_SHARE[self._device.type] * self._free) - self._held

    @property
    def told(self) -> str:
        """What is known, for an error message."""
        one = self._peak(_ONE)
        held, free, share = decimal(self._held), decimal(self._free), _SHARE[self._device.type]
        return (
            f"weights, gradients and optimizer take {held}, the answer {decimal(one) if one else 'more'}, and "
            f"{share:.0%} of {free} may be used"
        )

    def fitted(self, checkpointing: str) -> Fit | None:
        """The largest passes that fit; None if not one answer does."""
        if checkpointing == "on":
            self._learner.recompute_activations()
        asked = self._settings.tokens_per_pass
        budget = asked or min(self._estimate(), MOST_TOKENS)
        while True:
            passes = self._split(budget)
            largest = max(passes, key=self._tokens)
            peak = self._peak(largest)
            if peak is not None and (asked or peak <= self._room):
                dtype = self._settings.dtype
                return Fit(_name(self._device), dtype, checkpointing, budget, len(passes), self._held, peak, self._free)
            if asked or self._tokens(largest) == self._tokens(_ONE):
                return None
            budget = 3 * min(budget, self._tokens(largest)) // 4

    def work(self, budget: int) -> int:
        """Tokens that a step computes; a picture whose answers are cut counts once a part."""
        return sum(map(self._tokens, self._split(budget)))

    def _estimate(self) -> int:
        """The tokens whose pass should fit, from the growth with answers and with pictures."""
        more = Pass([0], [list(range(max(2, min(self._load.samples, _MEASURED_TOKENS // self._load.answer))))])
        wider = [Pass([0, 1], [[0], [0]])] if len(self._ids) > 1 else []
        one, *larger = ((self._tokens(each), self._peak(each)) for each in (_ONE, more, *wider))
        if one[1] is None:
            return 0
        slopes = [(peak - one[1]) / (tokens - one[0]) for tokens, peak in larger if peak is not None]
        return int(one[0] + (self._room - one[1]) / max([*slopes, 1.0])) if self._room > one[1] else 0

    def _split(self, budget: int) -> list[Pass]:
        prompts = [len(ids) for ids in self._ids]
        return split(prompts, [[self._load.answer] * self._load.samples] * len(prompts), budget)

    def _tokens(self, one: Pass) -> int:
        answers = [[self._load.answer] * len(places) for places in one.answers]
        return tokens_of([len(self._ids[row]) for row in one.pictures], answers)

    def _peak(self, one: Pass) -> int | None:
        """Bytes of a pass; None if a GPU's memory is too small for it. Of many processes none may end in mid-pass."""
        for parameter in self._learner.policy.trainable():
            parameter.grad = None
        try:
            return peak_bytes(lambda: self._run(one, self._load.answer), self._device)
        except torch.OutOfMemoryError:
            if world_size() > 1:
                raise
        torch.cuda.empty_cache()
        return None

    def _run(self, one: Pass, answer: int) -> None:
        """A pass on each process, over answers that nobody sampled."""
        rows = [row for row in one.pictures for _ in range(world_size())]
        shown = {str(place): self._load.pictures[row] for place, row in enumerate(rows)}
        made = Completion(text="", token_ids=[0] * answer, logprobs=[0.0] * answer, finish_reason="length")
        answers = [made] * len(one.answers[0])
        rollouts = [RolloutResult(prompt_token_ids=self._ids[row], completions=answers) for row in rows]
        self._learner.accumulate(shown, rollouts, np.ones((len(rows), len(answers))))


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
