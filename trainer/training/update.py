"""One optimizer step on a batch of images, their sampled answers and advantages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from service.contract import Completion
from trainer.pool.pool import Pool
from trainer.settings import EvolveSettings
from trainer.training.grpo import Clipping, GroupLoss, group_loss
from trainer.training.policy import Policy
from trainer.voting.pairs import Group

Answers = Sequence[Sequence[Completion]]


class Updater:
    """Updates the policy; its optimizer is part of what a killed training resumes from."""

    def __init__(self, policy: Policy, pool: Pool, settings: EvolveSettings) -> None:
        self.optimizer = torch.optim.AdamW(policy.trainable(), lr=settings.learning_rate, weight_decay=0.0)
        self._policy = policy
        self._pool = pool
        self._settings = settings

    def update(self, group: Group, answers: Answers, advantage: NDArray[np.float64], left: float) -> dict[str, float]:
        """One step over the images whose rewards have spread; one backward pass an image.

        `left` is the share of the training still to come, which the learning rate falls with. `advantage` is
        (B, K). Returns what to plot.
        """
        for options in self.optimizer.param_groups:
            options["lr"] = self._settings.learning_rate * left
        rows = np.flatnonzero(np.abs(advantage).max(1) > 0)
        tokens = sum(len(completion.token_ids) for row in rows for completion in answers[row])
        sums = {"loss": 0.0, "kl": 0.0, "entropy": 0.0, "clipped": 0.0, "ratio_error": 0.0}
        self.optimizer.zero_grad()
        for row in rows:
            loss = self._group_loss(group[row], answers[row], advantage[row])
            torch.autograd.backward(loss.loss / tokens)
            for name in sums:
                sums[name] += float(getattr(loss, name).detach()) / tokens
        norm = torch.nn.utils.clip_grad_norm_(self._policy.trainable(), 1.0) if len(rows) else torch.tensor(0.0)
        if len(rows):
            self.optimizer.step()
        return {**sums, "gradient_norm": float(norm), "images_trained": float(len(rows))}

    def _group_loss(self, image: str, answers: Sequence[Completion], advantage: NDArray[np.float64]) -> GroupLoss:
        with Image.open(self._pool.by_id[image].path) as picture:
            prompt = self._policy.encode("score", [picture.convert("RGB")])
        tokens = [completion.token_ids for completion in answers]
        current, mask = self._policy.logprobs(prompt, tokens)
        with torch.no_grad(), self._policy.reference():
            reference, _ = self._policy.logprobs(prompt, tokens)
        rollout = torch.zeros_like(current)
        for row, completion in enumerate(answers):
            rollout[row, : len(completion.logprobs)] = torch.tensor(completion.logprobs)
        return group_loss(
            current, rollout, reference, torch.tensor(advantage, dtype=torch.float32, device=current.device), mask,
            beta=self._settings.beta, clipping=Clipping(self._settings.clip_low, self._settings.clip_high),
        )  # fmt: skip
