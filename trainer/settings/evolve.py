"""How an evolution is run."""

from __future__ import annotations

from pathlib import Path

from pydantic import model_validator
from pydantic_settings import CliImplicitFlag

from trainer.settings.gate import GateSettings
from trainer.settings.pool import PoolSettings
from trainer.settings.service import Count
from trainer.settings.training import TrainingSettings
from trainer.settings.votes import VoteSettings


class EvolveSettings(GateSettings, TrainingSettings, VoteSettings, PoolSettings):
    """Runs evolution rounds: pool, pairs, votes, GRPO, gate, promotion, report. A killed run resumes."""

    run: Path
    """The run's folder: labels, metrics, checkpoints, reports. Give the same folder to resume."""
    base: str | None = None
    """Version that the first round starts from; if another serves, this one is promoted first. Default: the active
    one."""
    rounds: Count = 2
    """Rounds; each starts from the version that the one before promoted."""
    dry_run: CliImplicitFlag[bool] = False
    """Only tell what the run would take: images, votes, rollouts, steps, and, measured on a few groups against the
    running service, hours and disk. Nothing is kept."""
    price: Path | None = None
    """With --dry-run: also write what it tells to this JSON file."""

    tensorboard: CliImplicitFlag[bool] = True
    """Write TensorBoard's event files; look at them with `tensorboard --logdir <run>/tensorboard`."""
    mlflow: str | None = None
    """Tracking URI of an MLflow to follow the run too: a run a round, in the experiment `evoquality`."""

    @property
    def stopping_error(self) -> float | None:
        """None for soft labels: the share of votes that stopped early is more extreme than that of all."""
        return None if self.labels == "soft" else self.vote_error

    @property
    def handover_folder(self) -> Path:
        """Where weights are handed over."""
        return self.handover or self.store / "handover"

    @model_validator(mode="after")
    def _has_an_engine_to_overwrite(self) -> EvolveSettings:
        if self.policy == "full" and self.rollout_operator is None:
            raise ValueError(
                "policy full needs an engine whose weights it may overwrite: start one on the same store with "
                "`evoquality serve --role rollout` and name its operators' address with --rollout-operator"
            )
        return self
