"""One optimizer step on a batch of images, their sampled answers and advantages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
        """One step over the images whose rewards have spread; `images_per_pass` of them in a backward pass.

        `left` is the share of the training still to come, which the learning rate falls with. `advantage` is
        (B, K). Returns what to plot.
        """
        for options in self.optimizer.param_groups:
            options["lr"] = self._settings.learning_rate * left
        rows = np.flatnonzero(np.abs(advantage).max(1) > 0)
        tokens = sum(len(completion.token_ids) for row in rows for completion in answers[row])
        sums = {"loss": 0.0, "kl": 0.0, "entropy": 0.0, "clipped": 0.0, "ratio_error": 0.0}
        self.optimizer.zero_grad()
        size = self._settings.images_per_pass
        for chosen in (rows[start : start + size] for start in range(0, len(rows), size)):
            loss = self._pass([group[row] for row in chosen], [answers[row] for row in chosen], advantage[chosen])
            torch.autograd.backward(loss.loss / tokens)
            for name in sums:
                sums[name] += float(getattr(loss, name).detach()) / tokens
        norm = self._policy.gradient_norm(1.0) if len(rows) else 0.0
        if len(rows):
            self.optimizer.step()
        return {**sums, "gradient_norm": norm, "images_trained": float(len(rows))}

    def _pass(self, images: Group, answers: Answers, advantage: NDArray[np.float64]) -> GroupLoss:
        """The loss of some images' answers; `advantage` is (N, K)."""
        tokens = [[completion.token_ids for completion in group] for group in answers]
        pictures = [[self._pool.open(image)] for image in images]
        current, reference = self._policy.with_reference("score", pictures, tokens)
        return group_loss(
            current.chosen, _sampled_logprobs(answers, current.mask), reference.chosen,
            torch.tensor(advantage, dtype=torch.float32, device=current.mask.device), current.mask,
            beta=self._settings.beta, clipping=Clipping(self._settings.clip_low, self._settings.clip_high),
        )  # fmt: skip


def _sampled_logprobs(answers: Answers, mask: Tensor) -> Tensor:
    """(N, K, T) log-probabilities under the policy that sampled, as the engine reported them."""
    values = [value for group in answers for completion in group for value in completion.logprobs]
    return torch.zeros_like(mask).masked_scatter(mask.bool(), torch.tensor(values, device=mask.device))
