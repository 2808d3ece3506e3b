"""The online stage: GRPO on the score answer, K rollouts an image from the current policy through the engine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from service.client import Client
from service.contract import Completion
from service.prompts import Profile
from service.versions.store import VersionStore
from trainer import scores
from trainer.files import append_jsonl, read_jsonl, write_jsonl
from trainer.grpo import Clipping, GroupLoss, group_loss
from trainer.pairs import Group
from trainer.policy import Policy
from trainer.pool import Pool
from trainer.publish import served_adapter
from trainer.reward import advantages, rewards
from trainer.settings import EvolveSettings
from trainer.vote import Pair


@dataclass(slots=True)
class OnlineStage:
    """One round's training. `folder` keeps `steps.jsonl` and the checkpoint that a killed stage resumes from."""

    policy: Policy
    pool: Pool
    labels: dict[Pair, float]
    profile: Profile
    operator: Client
    store: VersionStore
    version: str
    settings: EvolveSettings
    seed: int
    folder: Path

    def run(self, groups: Sequence[Group], advance: Callable[[dict[str, Any] | None, int], None]) -> None:
        """Trains on every group, `settings.epochs` times; `advance` gets each step's metrics and the steps done."""
        plan = [group for _ in range(self.settings.epochs) for group in groups]
        optimizer = torch.optim.AdamW(self.policy.trainable(), lr=self.settings.learning_rate, weight_decay=0.0)
        done = self._resume(optimizer)
        advance(None, done)
        for step in range(done, len(plan)):
            for options in optimizer.param_groups:
                options["lr"] = self.settings.learning_rate * (1 - step / len(plan))
            metrics = {"step": step, **self._step(plan[step], step, optimizer)}
            append_jsonl(self.folder / "steps.jsonl", [metrics])
            if (step + 1) % self.settings.checkpoint_every == 0 or step + 1 == len(plan):
                self._save(optimizer, step + 1)
            advance(metrics, 1)

    def _step(self, group: Group, step: int, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        began = time.monotonic()
        with served_adapter(self.policy, self.store, self.operator, f"s{step:05d}") as adapter:
            answers = scores.sample(
                self.operator, self.pool, group, samples=self.settings.samples, version=self.version,
                adapter=adapter, seed=self.seed * 7919 + step * 104_729,
            )  # fmt: skip
        rolled_out = time.monotonic()
        sampled = scores.to_scores(answers, self.profile)
        reward = rewards(sampled, self._label_matrix(group), self.settings.gamma)
        advantage = advantages(reward, normalise=self.settings.normalise)
        update = self._update(group, answers, advantage, optimizer)
        return {
            **_describe(sampled, reward, advantage),
            **update,
            "rollout_seconds": rolled_out - began,
            "update_seconds": time.monotonic() - rolled_out,
        }

    def _update(
        self,
        group: Group,
        answers: Sequence[Sequence[Completion]],
        advantage: NDArray[np.float64],
        optimizer: torch.optim.Optimizer,
    ) -> dict[str, float]:
        """One optimizer step over the images whose rewards have spread; one backward pass an image."""
        rows = np.flatnonzero(np.abs(advantage).max(1) > 0)
        tokens = sum(len(completion.token_ids) for row in rows for completion in answers[row])
        sums = {"loss": 0.0, "kl": 0.0, "entropy": 0.0, "clipped": 0.0, "ratio_error": 0.0}
        optimizer.zero_grad()
        for row in rows:
            loss = self._group_loss(group[row], answers[row], advantage[row])
            torch.autograd.backward(loss.loss / tokens)
            for name in sums:
                sums[name] += float(getattr(loss, name).detach()) / tokens
        norm = torch.nn.utils.clip_grad_norm_(self.policy.trainable(), 1.0) if len(rows) else torch.tensor(0.0)
        if len(rows):
            optimizer.step()
        return {**sums, "gradient_norm": float(norm), "images_trained": float(len(rows))}

    def _group_loss(self, image: str, answers: Sequence[Completion], advantage: NDArray[np.float64]) -> GroupLoss:
        with Image.open(self.pool.by_id[image].path) as picture:
            prompt = self.policy.encode("score", [picture.convert("RGB")])
        tokens = [completion.token_ids for completion in answers]
        current, mask = self.policy.logprobs(prompt, tokens)
        with torch.no_grad(), self.policy.reference():
            reference, _ = self.policy.logprobs(prompt, tokens)
        rollout = torch.zeros_like(current)
        for row, completion in enumerate(answers):
            rollout[row, : len(completion.logprobs)] = torch.tensor(completion.logprobs)
        return group_loss(
            current, rollout, reference, torch.tensor(advantage, dtype=torch.float32, device=current.device), mask,
            beta=self.settings.beta, clipping=Clipping(self.settings.clip_low, self.settings.clip_high),
        )  # fmt: skip

    def _label_matrix(self, group: Group) -> NDArray[np.float64]:
        return np.array([[self.labels.get((one, other), np.nan) for other in group] for one in group])

    def _save(self, optimizer: torch.optim.Optimizer, steps: int) -> None:
        state = {"steps": steps, "adapter": self.policy.adapter_state(), "optimizer": optimizer.state_dict()}
        beside = self.folder / ".checkpoint.partial"
        with beside.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.folder / "checkpoint.pt")

    def _resume(self, optimizer: torch.optim.Optimizer) -> int:
        """Takes up the last checkpoint, forgets the metrics of steps after it, returns the steps done."""
        file = self.folder / "checkpoint.pt"
        steps = 0
        if file.exists():
            state = torch.load(file, weights_only=True, map_location=self.settings.device)
            self.policy.set_adapter_state(state["adapter"])
            optimizer.load_state_dict(state["optimizer"])
            steps = state["steps"]
        log = self.folder / "steps.jsonl"
        write_jsonl(log, [row for row in read_jsonl(log) if row["step"] < steps])
        return int(steps)


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
