"""The online stage: GRPO on the score answer, with K rollouts an image that the engine samples from the policy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.prompts import Profile
from trainer import termination
from trainer.files import append_jsonl, read_jsonl, write_jsonl
from trainer.pool.pool import Pool
from trainer.settings.evolve import EvolveSettings
from trainer.termination import Terminated, signals_deferred
from trainer.training import collapse
from trainer.training.handover import Handover
from trainer.training.learner import Learner, Shown, check_mismatch
from trainer.training.reward import Target, advantages
from trainer.training.rollouts import SampledGroup, Sampler, cut_off, sample_scores, to_scores
from trainer.voting.groups import Group


@dataclass(slots=True)
class OnlineStage:
    """One round's training. `folder` holds `steps.jsonl` and the checkpoint that a killed stage resumes from."""

    learner: Learner
    pool: Pool
    target: Target
    profile: Profile
    handover: Handover
    settings: EvolveSettings
    seed: int
    folder: Path
    served: str = "float32"
    """The dtype of the engine that samples."""

    def run(self, groups: Sequence[Group], advance: Callable[[dict[str, Any] | None, int], None]) -> None:
        """Trains on every group, `settings.epochs` times; `advance` gets each step's metrics and the steps done.

        With `settings.overlap` the rollouts of every step but the first are those of the policy one step behind,
        independent of timing, so that a run can be repeated.

        Raises:
            Collapsed: see `collapse.check` and `collapse.check_skipped`.
            NothingToLearn: no answer has earned another reward than the others about its image.
            EngineMismatch: before the first step engine and torch disagree.
            Terminated: a signal came; the steps done are in the checkpoint.
        """
        plan = [group for _ in range(self.settings.epochs) for group in groups]
        done, ahead = self._resume()
        self._watch(len(plan))  # a kill may have come before the last step was checked
        advance(None, done)
        with Sampler() as sampler:
            for step in range(done, len(plan)):
                began = time.monotonic()
                try:
                    ahead = ahead or self._collect(self._begin(plan, step, sampler), plan[step])
                    if step == 0:
                        check_mismatch(ahead.mismatch, self.served, self.settings)
                    metrics, following = self._prepare(plan, step, ahead, sampler)
                except Terminated:  # the weights have not moved since the last step
                    if step:
                        self._save(step, ahead)
                    raise
                with signals_deferred():
                    norm = self.learner.step(rate(step, len(plan), self.settings.warmup_steps))
                    ahead, seconds = following, time.monotonic() - began
                    metrics = {"step": step, **metrics, "gradient_norm": norm, "step_seconds": seconds}
                    metrics = _finite(metrics) | {"skipped": float(not math.isfinite(norm))}
                    append_jsonl(self.folder / "steps.jsonl", [metrics])
                    if termination.came() or (step + 1) % self.settings.checkpoint_every == 0 or step + 1 == len(plan):
                        self._save(step + 1, ahead)
                    advance(metrics, 1)
                self._watch(len(plan))

    def _prepare(
        self, plan: list[Group], step: int, rollouts: SampledGroup, sampler: Sampler
    ) -> tuple[dict[str, float], SampledGroup | None]:
        """Computes a step's gradients. Returns its metrics, and the next step's rollouts if they overlap."""
        began = time.monotonic()
        overlaps = self.settings.overlap and step + 1 < len(plan)
        sampling = self._begin(plan, step + 1, sampler) if overlaps else None
        sampled = to_scores(rollouts.results, self.profile)
        cut = cut_off(rollouts.results, sampled)
        reward = self.target.rewards(plan[step], sampled)
        counted = np.where(cut, np.nan, reward) if self.settings.cut_off == "masked" else reward
        advantage = advantages(counted, normalise=self.settings.normalise)
        update = self.learner.accumulate(self._shown(plan[step]), rollouts.results, advantage)
        updated = time.monotonic()
        ahead = self._collect(sampling, plan[step + 1]) if sampling else None  # before the weights move
        metrics = {
            **_describe(sampled, cut, reward, advantage),
            **update,
            "mismatch": rollouts.mismatch,
            "rollout_seconds": rollouts.seconds,
            "update_seconds": updated - began,
        }
        return metrics, ahead

    def _begin(self, plan: list[Group], step: int, sampler: Sampler) -> Future[SampledGroup]:
        """Begins to sample a step's rollouts from the policy as it is now."""
        serving = self.handover.served(self.learner, f"s{step:05d}")
        k, seed = self.settings.samples, self.seed * 7919 + step * 104_729
        sample = partial(
            sample_scores, self.handover.workers, self.pool, plan[step], samples=k, seed=seed, logprobs=True
        )
        return sampler.begin(serving, sample)

    def _collect(self, sampling: Future[SampledGroup], group: Group) -> SampledGroup:
        """Waits for rollouts, and compares engine with torch on the first image while the policy is still the same."""
        sampled = sampling.result()
        mismatch = self.learner.mismatch(self._shown(group[:1]), sampled.results[0])
        return sampled.model_copy(update={"mismatch": mismatch})

    def _shown(self, group: Group) -> Shown:
        return {image: self.pool.open(image) for image in group}

    def _watch(self, steps: int) -> None:
        if rows := list(read_jsonl(self.folder / "steps.jsonl")):
            if len(rows) >= min(self.settings.collapse_window, steps):
                collapse.check_informative(rows)
            collapse.check_skipped(rows, min(self.settings.collapse_skipped, steps))
            collapse.check(rows, self.settings)

    def _save(self, done: int, ahead: SampledGroup | None) -> None:
        self.learner.save(self.folder / "checkpoint.pt", done, ahead.model_dump() if ahead else None)

    def _resume(self) -> tuple[int, SampledGroup | None]:
        """Resumes from the last checkpoint and deletes the metrics of later steps. Returns the number of steps done and
        the next step's rollouts."""
        done, ahead = self.learner.resume(self.folder / "checkpoint.pt")
        log = self.folder / "steps.jsonl"
        write_jsonl(log, [row for row in read_jsonl(log) if row["step"] < done])
        return done, SampledGroup.model_validate(ahead) if ahead else None


def rate(step: int, steps: int, warmup: int) -> float:
    """The share of the learning rate at a step: it rises linearly over the `warmup` steps, then falls linearly to 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (steps - step) / (steps - warmup)


def _finite(metrics: dict[str, Any]) -> dict[str, Any]:
    """With None for figures that are not finite, which JSON and plots do not know."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def _describe(
    sampled: NDArray[np.float64], cut: NDArray[np.bool_], reward: NDArray[np.float64], advantage: NDArray[np.float64]
) -> dict[str, float]:
    """The metrics of a step's rollouts."""
    means = [float(np.nanmean(row)) for row in sampled if np.isfinite(row).any()]
    deviations = [float(np.nanstd(row)) for row in sampled if np.isfinite(row).any()]
    return {
        "reward": float(reward.mean()),
        "unreadable": float((np.isnan(sampled) & ~cut).mean()),
        "cut_off": float(cut.mean()),
        "score_mean": float(np.mean(means)) if means else 0.0,
        "score_spread": float(np.std(means)) if means else 0.0,
        "sample_deviation": float(np.mean(deviations)) if deviations else 0.0,
        "constant": deviations.count(0.0) / len(deviations) if deviations else 0.0,
        "informative": float((np.abs(advantage) > 0).any(1).mean()),
    }
