"""Policy and optimizer as every process has them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from service.contract import InfoResponse, RolloutResult
from service.prompts import Profile
from trainer.errors import PromptMismatch
from trainer.files import replacing
from trainer.settings.evolve import EvolveSettings
from trainer.training import distributed, sharding
from trainer.training.distributed import together
from trainer.training.grpo import Clipping, group_loss
from trainer.training.logprobs import Logprobs
from trainer.training.policy import Policy, load_policy


class Learner:
    """What learns in a round. Each call happens on all processes (see `distributed`); only rank 0 writes files."""

    def __init__(self, policy: Policy, settings: EvolveSettings) -> None:
        self.policy = policy
        self._updater = Updater(policy, settings)

    @together
    def accumulate(self, shown: Shown, rollouts: Rollouts, advantage: NDArray[np.float64]) -> dict[str, float]:
        """See `Updater.accumulate`."""
        return self._updater.accumulate(shown, rollouts, advantage)

    @together
    def step(self, left: float) -> float:
        """See `Updater.step`."""
        return self._updater.step(left)

    @together
    def mismatch(self, shown: Shown, rollout: RolloutResult) -> float:
        """See `Updater.mismatch`."""
        return self._updater.mismatch(shown, rollout)

    @together
    def save(self, file: Path, steps: int, ahead: Ahead) -> None:
        """See `checkpoint.save`."""
        save(file, self.policy, self._updater.optimizer, steps, ahead)

    @together
    def resume(self, file: Path) -> tuple[int, Ahead]:
        """See `checkpoint.resume`."""
        return resume(file, self.policy, self._updater.optimizer)

    @together
    def is_finite(self) -> bool:
        """Whether every weight under training is a number."""
        return all(bool(torch.isfinite(weights).all()) for weights in self.policy.state().values())

    @together
    def hand_over(self, directory: Path) -> None:
        """See `Policy.hand_over`."""
        self.policy.hand_over(directory)

    @together
    def save_checkpoint(self, directory: Path) -> None:
        """See `Policy.save_checkpoint`."""
        self.policy.save_checkpoint(directory)


def begin(version: Path, profile: Profile, settings: EvolveSettings, seed: int, engine: InfoResponse) -> Learner:
    """A round's learner; `version` is the directory of the weights to begin with, the others see `load_policy`."""
    return Learner(load_policy(version, profile, settings, seed, engine), settings)


Ahead = dict[str, Any] | None
"""Rollouts as plain values, if any overlap."""


def save(file: Path, policy: Policy, optimizer: torch.optim.Optimizer, steps: int, ahead: Ahead) -> None:
    """Replaces the checkpoint atomically. `ahead` are the next step's rollouts. All ranks must call it."""
    kept = sharding.gathered_optimizer(policy.network, optimizer)
    state = {"steps": steps, "policy": policy.state(), "optimizer": kept, "ahead": ahead}
    if not distributed.leads():
        return
    with replacing(file) as opened:
        torch.save(state, opened)


def resume(file: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> tuple[int, Ahead]:
    """Takes up the last checkpoint, if rank 0 finds one. All ranks must call it.

    Returns:
        The steps done, and on rank 0 the next step's rollouts.

    Raises:
        ValueError: the checkpoint holds other weights than the policy trains.
    """
    state = torch.load(file, weights_only=True, map_location="cpu") if distributed.leads() and file.exists() else None
    if state:
        _check_fits(file, state["policy"], policy)
    steps = distributed.from_leader(state and state["steps"])
    if steps is None:
        return 0, None
    policy.set_state(state["policy"] if state else {})
    sharding.scatter_optimizer(policy.network, optimizer, state["optimizer"] if state else {})
    return int(steps), state and state["ahead"]


def _check_fits(file: Path, weights: Mapping[str, Tensor], policy: Policy) -> None:
    trained = {name: each.shape for name, each in policy.network.named_parameters() if each.requires_grad}
    if {name: each.shape for name, each in weights.items()} != trained:
        raise ValueError(
            f"{file} was written with another --policy, --rank or --train-vision; give those it began with, or "
            "another --run"
        )


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
