"""One optimizer step on a batch of images, their sampled answers and advantages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from evoquality.contract import RolloutResult
from trainer.errors import PromptMismatch
from trainer.settings.evolve import EvolveSettings
from trainer.training import distributed
from trainer.training.grpo import Clipping, group_loss
from trainer.training.logprobs import Logprobs
from trainer.training.policy import Policy

Rollouts = Sequence[RolloutResult]
"""The answers to one prompt an image."""
Shown = Mapping[str, Image.Image]
"""Images' pictures, RGB, by content id."""
_MEANS = ("loss", "kl", "entropy", "clipped", "truncated", "ratio")
"""What is averaged over a step's tokens."""


class Updater:
    """Updates the policy; its optimizer is part of what a killed training resumes from."""

    def __init__(self, policy: Policy, settings: EvolveSettings) -> None:
        self.optimizer = torch.optim.AdamW(policy.trainable(), lr=settings.learning_rate, weight_decay=0.0)
        self._policy = policy
        self._settings = settings
        self._clipping = Clipping(settings.clip_low, settings.clip_high, settings.truncation)

    def accumulate(self, shown: Shown, rollouts: Rollouts, advantage: NDArray[np.float64]) -> dict[str, float]:
        """The gradients of one step over the images whose rewards have spread, `images_per_pass` at a time; under
        torchrun each process takes a part of them.

        `advantage` is (B, K). Returns what to plot: means over the tokens.

        Raises:
            PromptMismatch: the engine saw another prompt than torch.
        """
        self.optimizer.zero_grad()
        rows = np.flatnonzero(np.abs(advantage).max(1) > 0)
        tokens = sum(len(completion.token_ids) for row in rows for completion in rollouts[row].completions)
        images = list(shown.items())
        passes = [
            self._pass(
                dict(images[row] for row in chosen), [rollouts[row] for row in chosen], advantage[chosen],
                tokens if counts else math.inf,
            )
            for chosen, counts in distributed.shares(rows, self._settings.images_per_pass)
        ]  # fmt: skip
        means = distributed.summed({name: sum(found[name] for found in passes) for name in _MEANS})
        largest = distributed.largest(max((found["ratio_max"] for found in passes), default=0.0))
        return {**means, "ratio_max": largest, "images_trained": float(len(rows))}

    def step(self, left: float) -> float:
        """Moves the weights by the gradients; `left` is the share of the training still to come, which the learning
        rate falls with. Returns the gradients' norm, 0 where no image had any."""
        for options in self.optimizer.param_groups:
            options["lr"] = self._settings.learning_rate * left
        norm = self._policy.gradient_norm(1.0)
        self.optimizer.step()
        return norm

    @torch.no_grad()
    def mismatch(self, shown: Shown, rollout: RolloutResult) -> float:
        """How far engine and torch are apart under the same weights: the mean |ratio - 1| of one image's tokens,
        sampled from the policy as it is now."""
        current, _ = self._logprobs(shown, [rollout], reference=False)
        ratio = torch.exp(current.chosen - _sampled_logprobs([rollout], current.mask))
        return float(((ratio - 1).abs() * current.mask).sum() / current.mask.sum())

    def _pass(
        self, shown: Shown, rollouts: Rollouts, advantage: NDArray[np.float64], tokens: float
    ) -> dict[str, float]:
        """One forward and backward pass; `advantage` is (N, K), `tokens` those of the whole step, infinite if this
        pass must not count."""
        current, reference = self._logprobs(shown, rollouts, reference=self._settings.beta > 0)
        found = group_loss(
            current.chosen, _sampled_logprobs(rollouts, current.mask), reference and reference.chosen,
            torch.tensor(advantage, dtype=torch.float32, device=current.mask.device), current.mask,
            beta=self._settings.beta, clipping=self._clipping,
        )  # fmt: skip
        torch.autograd.backward(found.loss / tokens * distributed.processes())  # FSDP takes their mean
        sums = {**found._asdict(), "entropy": current.entropy.sum()}
        return {name: float(value.detach()) / (1 if name == "ratio_max" else tokens) for name, value in sums.items()}

    def _logprobs(self, shown: Shown, rollouts: Rollouts, *, reference: bool) -> tuple[Logprobs, Logprobs | None]:
        pictures = [[picture] for picture in shown.values()]
        answers = [[completion.token_ids for completion in rollout.completions] for rollout in rollouts]
        found = self._policy.with_reference("score", pictures, answers, reference=reference)
        for image, prompt, rollout in zip(shown, found[0].prompts, rollouts, strict=True):
            check_prompt(image, prompt, rollout.prompt_token_ids)
        return found


def check_prompt(image: str, torch_saw: list[int], engine_saw: list[int]) -> None:
    """Misaligned prompts would train on log-probabilities of something else, silently. Raises PromptMismatch."""
    if len(torch_saw) != len(engine_saw):
        raise PromptMismatch(
            f"image {image}: the engine's prompt has {len(engine_saw)} tokens, the trainer's {len(torch_saw)}. They "
            "scale pictures differently: every service that samples must run with the same --min-pixels and "
            "--max-pixels as the one at --operator"
        )
    if torch_saw != engine_saw:
        raise PromptMismatch(
            f"image {image}: the engine's prompt has other tokens than the trainer's. Tokenizer or chat template "
            "differ: service and trainer must read the same version from the same --store"
        )


def _sampled_logprobs(rollouts: Rollouts, mask: Tensor) -> Tensor:
    """(N, K, T) log-probabilities under the policy that sampled, as the engine reported them."""
    values = [value for rollout in rollouts for completion in rollout.completions for value in completion.logprobs]
    return torch.zeros_like(mask).masked_scatter(mask.bool(), torch.tensor(values, device=mask.device))
