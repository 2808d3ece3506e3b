"""Policy and optimizer as every process has them: one GRPO step on a batch of images, their sampled answers and
advantages, and the checkpoint that a killed training resumes from.

The checkpoint holds whole tensors, so that any number of processes may resume it: the trainable weights, the optimizer,
the number of steps done, and the next step's rollouts, because the policy that sampled them may be gone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from evoquality.contract import InfoResponse, RolloutResult
from service.prompts import Profile
from trainer.errors import EngineMismatch, PromptMismatch, UserError
from trainer.files import replacing
from trainer.settings.evolve import EvolveSettings
from trainer.training import distributed, losses, sharding
from trainer.training.choices import learning_rate
from trainer.training.distributed import on_all_ranks
from trainer.training.grpo import group_loss
from trainer.training.logprobs import Logprobs
from trainer.training.passes import MOST_TOKENS, Pass, split
from trainer.training.policy import Policy, load_policy
from trainer.training.precise import Float32
from trainer.training.self_check import SelfCheck
from trainer.training.shared_prefix import shared_states

Rollouts = Sequence[RolloutResult]
"""The answers to one prompt an image."""
Shown = Mapping[str, Image.Image]
"""RGB pictures by content id."""
Ahead = dict[str, Any] | None
"""The next step's rollouts as plain values, if rollouts overlap updates."""
_MEANS = ("loss", "kl", "entropy", "clipped", "truncated", "ratio")
"""Metrics that are averaged over a step's tokens."""


class Compared(NamedTuple):
    """Flat (tokens,) log-probabilities of the answers to one image."""

    policy: NDArray[np.float64]
    written: NDArray[np.float64]
    began: NDArray[np.float64]


class Learner:
    """The policy under training with its optimizer. Every call runs on all ranks (see `distributed`); only rank 0
    writes files."""

    def __init__(self, policy: Policy, settings: EvolveSettings) -> None:
        self.policy = policy
        self._settings = settings
        self._loss = losses.chosen(settings)
        self._is_finite = True
        parameters = sum(weights.numel() for weights in policy.network.parameters())
        self._rate = settings.learning_rate or learning_rate(settings.policy, parameters)
        self._optimizer = torch.optim.AdamW(policy.trainable(), lr=self._rate, weight_decay=0.0)

    @on_all_ranks
    def self_check(self, picture: Image.Image) -> SelfCheck:
        """See `Policy.self_check`."""
        return self.policy.self_check(picture)

    @on_all_ranks
    def accumulate(self, shown: Shown, rollouts: Rollouts, advantage: NDArray[np.float64]) -> dict[str, float]:
        """Computes one step's gradients over the images whose rewards have spread, in passes of at most
        `tokens_per_pass`. Under torchrun each process takes a part of the images.

        Args:
            shown: B pictures.
            rollouts: K answers to each of them.
            advantage: (B, K); NaN for an answer that takes no part.

        Returns:
            The step's metrics, means over its tokens; the loss is the mean over its answers if it is one by answer.

        Raises:
            PromptMismatch: the engine saw another prompt than torch.
        """
        self._optimizer.zero_grad()
        rows = np.flatnonzero((np.abs(advantage) > 0).any(1)).tolist()
        lengths = [
            len(completion.token_ids)
            for row in rows
            for completion, own in zip(rollouts[row].completions, advantage[row], strict=True)
            if np.isfinite(own)
        ]
        mine = self._split(rollouts, rows[distributed.rank() :: distributed.world_size()])
        passes = [
            self._pass(
                *_taken(part, shown, rollouts, advantage), tokens=sum(lengths), answers=len(lengths), counts=counts
            )
            for part, counts in distributed.evenly(mine, spare=Pass(rows[:1], [[0]]))
        ]
        means = distributed.all_reduce_sum({name: sum(found[name] for found in passes) for name in _MEANS})
        largest = distributed.all_reduce_max(max((found["ratio_max"] for found in passes), default=0.0))
        self._is_finite = math.isfinite(means["loss"])
        shares = float(self.policy.network.states is shared_states)
        return {**means, "ratio_max": largest, "images_trained": float(len(rows)), "shared_prefix": shares}

    @on_all_ranks
    def step(self, rate: float) -> float:
        """Moves the weights along the gradients, unless loss or gradients are not finite: such a step is skipped, and
        nothing of it is left. All ranks decide alike, because loss and norm are those of the whole step.

        Args:
            rate: the share of the learning rate.

        Returns:
            The norm of the gradients before they were clipped, 0 if no image had any; NaN or infinite if the step was
            skipped.
        """
        for options in self._optimizer.param_groups:
            options["lr"] = self._rate * rate
        norm = self.policy.gradient_norm(self._settings.gradient_clip) if self._is_finite else math.nan
        if math.isfinite(norm):
            self._optimizer.step()
        else:
            self._optimizer.zero_grad()
        return norm

    @on_all_ranks
    @torch.no_grad()
    def mismatch(self, shown: Shown, rollout: RolloutResult) -> float:
        """The difference between engine and torch under the same weights: the mean |ratio - 1| over the tokens of one
        image's answers, sampled from the policy as it is now."""
        apart = tokens = 0.0
        for part in self._split([rollout], [0]):
            _, taken, _ = _taken(part, shown, [rollout], np.zeros((1, len(rollout.completions))))
            current, _ = self._logprobs(shown, taken, reference=False)
            ratio = torch.exp(current.chosen - _sampled_logprobs(taken, current.mask))
            apart += float(((ratio - 1).abs() * current.mask).sum())
            tokens += float(current.mask.sum())
        return apart / tokens

    @on_all_ranks
    def recompute_activations(self) -> None:
        """See `PolicyNetwork.recompute_activations`."""
        self.policy.network.recompute_activations()

    @on_all_ranks
    @torch.no_grad()
    def compare(self, written: Path, shown: Shown, rollouts: Rollouts) -> list[Compared]:
        """The log-probabilities of each image's answers under the policy, under the weights that it has written, and
        under those that it began with. The policy holds the latter from then on: there is room for one model only.

        In float32 arithmetic, so that they differ by the weights alone.
        """
        found = [self._exact(shown, rollouts)]
        for checkpoint in (written, self.policy.checkpoint):
            self.policy.load_weights(checkpoint)
            found.append(self._exact(shown, rollouts))
        return [Compared(*rows) for rows in zip(*found, strict=True)]

    @on_all_ranks
    def save(self, file: Path, steps: int, ahead: Ahead) -> None:
        """Replaces the checkpoint atomically; `steps` are done, `ahead` are the next step's rollouts."""
        optimizer = sharding.gathered_optimizer(self.policy.network, self._optimizer)
        state = {"steps": steps, "policy": self.policy.state(), "optimizer": optimizer, "ahead": ahead}
        if not distributed.is_main():
            return
        with replacing(file) as opened:
            torch.save(state, opened)

    @on_all_ranks
    def resume(self, file: Path) -> tuple[int, Ahead]:
        """Loads the last checkpoint if rank 0 finds one.

        Returns:
            The number of steps done, and on rank 0 the next step's rollouts.

        Raises:
            UserError: the checkpoint holds other weights than the policy trains.
        """
        found = distributed.is_main() and file.exists()
        state = torch.load(file, weights_only=True, map_location="cpu") if found else None
        if state:
            _check_fits(file, state["policy"], self.policy)
        steps = distributed.broadcast(state and state["steps"])
        if steps is None:
            return 0, None
        self.policy.set_state(state["policy"] if state else {})
        sharding.scatter_optimizer(self.policy.network, self._optimizer, state["optimizer"] if state else {})
        return int(steps), state and state["ahead"]

    @on_all_ranks
    def is_finite(self) -> bool:
        """True if no weight under training is NaN or infinite."""
        return all(bool(torch.isfinite(weights).all()) for weights in self.policy.state().values())

    @on_all_ranks
    def hand_over(self, directory: Path) -> None:
        """See `Policy.hand_over`."""
        self.policy.hand_over(directory)

    @on_all_ranks
    def save_checkpoint(self, directory: Path) -> None:
        """See `Policy.save_checkpoint`."""
        self.policy.save_checkpoint(directory)

    def _split(self, rollouts: Rollouts, rows: Sequence[int]) -> list[Pass]:
        """Passes over these images."""
        prompts = [len(rollout.prompt_token_ids) for rollout in rollouts]
        answers = [[len(completion.token_ids) for completion in rollout.completions] for rollout in rollouts]
        return split(prompts, answers, self._settings.tokens_per_pass or MOST_TOKENS, rows)

    def _pass(
        self,
        shown: Shown,
        rollouts: Rollouts,
        advantage: NDArray[np.float64],
        *,
        tokens: int,
        answers: int,
        counts: bool,
    ) -> dict[str, float]:
        """One forward and backward pass over N images; `advantage` is (N, K), `tokens` and `answers` are the numbers of
        the whole step, and a pass that does not count has no gradients."""
        current, reference = self._logprobs(shown, rollouts, reference=self._settings.beta > 0)
        given = torch.tensor(advantage, dtype=torch.float32, device=current.mask.device)
        mask = current.mask * given.isfinite()[..., None]
        found = group_loss(
            current.chosen,
            _sampled_logprobs(rollouts, current.mask),
            reference and reference.chosen,
            given.nan_to_num(),
            mask,
            beta=self._settings.beta,
            loss=self._loss,
        )
        weight = counts / (answers if self._loss.by_answer else tokens)
        torch.autograd.backward(found.loss * weight * distributed.world_size())  # FSDP averages over the ranks
        sums = {**found._asdict(), "entropy": (current.entropy * mask).sum()}
        weights = dict.fromkeys(sums, counts / tokens) | {"loss": weight, "ratio_max": 1}
        return {name: float(value.detach()) * weights[name] for name, value in sums.items()}

    def _exact(self, shown: Shown, rollouts: Rollouts) -> list[NDArray[np.float64]]:
        """Log-probabilities of each image's answers, flat, one image at a time."""
        with Float32():
            found = [
                self._logprobs({image: picture}, [rollout], reference=False)[0]
                for (image, picture), rollout in zip(shown.items(), rollouts, strict=True)
            ]
        return [each.chosen[each.mask.bool()].double().cpu().numpy() for each in found]

    def _logprobs(self, shown: Shown, rollouts: Rollouts, *, reference: bool) -> tuple[Logprobs, Logprobs | None]:
        answers = [[completion.token_ids for completion in rollout.completions] for rollout in rollouts]
        found = self.policy.with_reference(list(shown.values()), answers, reference=reference)
        for image, prompt, rollout in zip(shown, found[0].prompts, rollouts, strict=True):
            check_prompt(image, prompt, rollout.prompt_token_ids)
        return found


def begin(version: Path, profile: Profile, settings: EvolveSettings, seed: int, engine: InfoResponse) -> Learner:
    """The learner at the beginning of a round; `version` is the directory of its first weights, for the others see
    `load_policy`."""
    return Learner(load_policy(version, profile, settings, seed, engine), settings)


def check_prompt(image: str, torch_saw: list[int], engine_saw: list[int]) -> None:
    """Compares the prompts' token ids: with other prompts the log-probabilities would be silently wrong.

    Raises:
        PromptMismatch: they differ.
    """
    if len(torch_saw) != len(engine_saw):
        raise PromptMismatch(
            f"image {image}: the engine's prompt has {len(engine_saw)} tokens, the trainer's {len(torch_saw)}. They "
            "scale pictures differently: start every service that samples with the same --min-pixels and --max-pixels "
            "as the one at --operator"
        )
    if torch_saw != engine_saw:
        raise PromptMismatch(
            f"image {image}: the engine's prompt has other tokens than the trainer's. Tokenizer or chat template "
            "differ: let service and trainer read the same version from the same --store"
        )


def _taken(
    part: Pass, shown: Shown, rollouts: Rollouts, advantage: NDArray[np.float64]
) -> tuple[Shown, list[RolloutResult], NDArray[np.float64]]:
    """The pictures, answers and advantages of a pass."""
    images, pairs = list(shown.items()), list(zip(part.pictures, part.answers, strict=True))
    answered = [
        rollouts[row].model_copy(update={"completions": [rollouts[row].completions[place] for place in places]})
        for row, places in pairs
    ]
    return dict(images[row] for row in part.pictures), answered, np.array([advantage[row, p] for row, p in pairs])


def check_mismatch(mismatch: float, served: str, settings: EvolveSettings) -> None:
    """Compares the result of `Learner.mismatch` with its limit beside an engine of the dtype `served`.

    Raises:
        EngineMismatch: it is larger, or no number.
    """
    limit = settings.most_mismatch(served)
    if not mismatch <= limit:
        raise EngineMismatch(
            f"engine and trainer give the same answers other probabilities under the same weights: |ratio - 1| is "
            f"{mismatch:.3f} in the mean (--mismatch allows {limit:g}), and training would follow that. Look at the "
            f"arithmetic (--dtype is {served} for the engine, {settings.dtype} for the trainer); at the pictures (the "
            "same --min-pixels and --max-pixels on every service that samples); at processor and chat template (both "
            "read those of one version of one store); at positions and attention: the round's self_check.json clears "
            "the trainer, so compare the engine with transformers. If it is rounding alone, give both one --dtype, or "
            "a larger --mismatch"
        )


def _sampled_logprobs(rollouts: Rollouts, mask: Tensor) -> Tensor:
    """(N, K, T) log-probabilities under the policy that sampled, as the engine reported them."""
    values = [value for rollout in rollouts for completion in rollout.completions for value in completion.logprobs]
    return torch.zeros_like(mask).masked_scatter(mask.bool(), torch.tensor(values, device=mask.device))


def _check_fits(file: Path, weights: Mapping[str, Tensor], policy: Policy) -> None:
    trained = {name: each.shape for name, each in policy.network.named_parameters() if each.requires_grad}
    if {name: each.shape for name, each in weights.items()} != trained:
        raise UserError(
            f"{file} was written with another --policy, --rank or --train-vision; give those it began with, or "
            "another --run"
        )
