"""Policy and optimizer as every process has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from evoquality.contract import InfoResponse, RolloutResult
from service.prompts import Profile
from trainer.settings.evolve import EvolveSettings
from trainer.training import checkpoint
from trainer.training.checkpoint import Ahead
from trainer.training.distributed import together
from trainer.training.policies import load_policy
from trainer.training.policy import Policy
from trainer.training.update import Rollouts, Shown, Updater


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
        checkpoint.save(file, self.policy, self._updater.optimizer, steps, ahead)

    @together
    def resume(self, file: Path) -> tuple[int, Ahead]:
        """See `checkpoint.resume`."""
        return checkpoint.resume(file, self.policy, self._updater.optimizer)

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
