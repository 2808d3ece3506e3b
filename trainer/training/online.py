"""The online stage: GRPO on the score answer, K rollouts an image from the current policy through the engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.contract import Completion
from service.prompts import Profile
from trainer.files import append_jsonl, read_jsonl, write_jsonl
from trainer.pool.pool import Pool
from trainer.settings import EvolveSettings
from trainer.training import checkpoint, scores
from trainer.training.handover import Handover
from trainer.training.policy import Policy
from trainer.training.reward import advantages, rewards
from trainer.training.update import Updater
from trainer.voting.pairs import Group
from trainer.voting.vote import Pair


@dataclass(slots=True)
class OnlineStage:
    """One round's training. `folder` keeps `steps.jsonl` and the checkpoint that a killed stage resumes from."""

    policy: Policy
    pool: Pool
    labels: dict[Pair, float]
    profile: Profile
    handover: Handover
    settings: EvolveSettings
    seed: int
    folder: Path

    def run(self, groups: Sequence[Group], advance: Callable[[dict[str, Any] | None, int], None]) -> None:
        """Trains on every group, `settings.epochs` times; `advance` gets each step's metrics and the steps done."""
        plan = [group for _ in range(self.settings.epochs) for group in groups]
        updater = Updater(self.policy, self.pool, self.settings)
        done = self._resume(updater)
        advance(None, done)
        for step in range(done, len(plan)):
            metrics = {"step": step, **self._step(plan[step], step, 1 - step / len(plan), updater)}
            append_jsonl(self.folder / "steps.jsonl", [metrics])
            if (step + 1) % self.settings.checkpoint_every == 0 or step + 1 == len(plan):
                checkpoint.save(self.folder / "checkpoint.pt", self.policy, updater.optimizer, step + 1)
            advance(metrics, 1)

    def _step(self, group: Group, step: int, left: float, updater: Updater) -> dict[str, float]:
        began = time.monotonic()
        answers = self._roll_out(group, step)
        rolled_out = time.monotonic()
        sampled = scores.to_scores(answers, self.profile)
        reward = rewards(sampled, self._label_matrix(group), self.settings.gamma)
        advantage = advantages(reward, normalise=self.settings.normalise)
        update = updater.update(group, answers, advantage, left)
        return {
            **_describe(sampled, reward, advantage),
            **update,
            "rollout_seconds": rolled_out - began,
            "update_seconds": time.monotonic() - rolled_out,
        }

    def _roll_out(self, group: Group, step: int) -> list[list[Completion]]:
        with self.handover.served(self.policy, f"s{step:05d}") as served:
            return scores.sample(
                self.handover.workers, self.pool, group, served, samples=self.settings.samples,
                seed=self.seed * 7919 + step * 104_729,
            )  # fmt: skip

    def _label_matrix(self, group: Group) -> NDArray[np.float64]:
        return np.array([[self.labels.get((one, other), np.nan) for other in group] for one in group])

    def _resume(self, updater: Updater) -> int:
        """Takes up the last checkpoint, forgets the metrics of steps after it, returns the steps done."""
        done = checkpoint.resume(self.folder / "checkpoint.pt", self.policy, updater.optimizer)
        log = self.folder / "steps.jsonl"
        write_jsonl(log, [row for row in read_jsonl(log) if row["step"] < done])
        return done


def _describe(
    sampled: NDArray[np.float64], reward: NDArray[np.float64], advantage: NDArray[np.float64]
) -> dict[str, float]:
    """What to plot of a step's rollouts."""
    means = [float(np.nanmean(row)) for row in sampled if np.isfinite(row).any()]
    deviations = [float(np.nanstd(row)) for row in sampled if np.isfinite(row).any()]
    judged = reward[np.isfinite(reward)]
    return {
        "reward": float(judged.mean()) if judged.size else 0.0,
        "unreadable": float(np.isnan(sampled).mean()),
        "score_mean": float(np.mean(means)) if means else 0.0,
        "score_spread": float(np.std(means)) if means else 0.0,
        "sample_deviation": float(np.mean(deviations)) if deviations else 0.0,
        "informative": float((np.abs(advantage).max(1) > 0).mean()),
    }
