"""One arm with one seed: a run of the trainer in a folder of its own, evaluated after each round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.ablations.arms import Arm
from trainer.files import read_json
from trainer.progress import stage_times
from trainer.settings.evolve import EvolveSettings

OPEN: dict[str, Any] = {
    "gate_unreadable": 1, "gate_agreement_loss": 1, "gate_spread": 0, "gate_largest_spread": 100, "gate_drift": 4,
    "gate_position_bias": 1, "regression_drift": 4, "collapse_entropy": 0.001, "collapse_spread": 0.001,
    "collapse_constant": 1, "collapse_unreadable": 0.9, "collapse_kl": 30,
}  # fmt: skip
"""Limits that stop nothing but a wreck: an ablation is decided by its figures, not by the gate."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How large every trial is."""

    groups: int
    samples: int


@dataclass(frozen=True, slots=True)
class Trial:
    """Its files are in `study`/seed-N/<arm>/."""

    study: Path
    arm: Arm
    seed: int

    @property
    def folder(self) -> Path:
        """That of the trainer's run."""
        return self.study / f"seed-{self.seed}" / self.arm.name

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.arm.name}, seed {self.seed}"

    def settings(self, rounds: int, scale: Scale, operator: str) -> EvolveSettings:
        """Those of its first `rounds` rounds. Raises pydantic.ValidationError if the arm's are none."""
        return EvolveSettings(
            pool=self.study / "pool", run=self.folder, store=self.study / "store", operator=operator, rounds=rounds,
            seed=self.seed, groups=scale.groups, samples=scale.samples, tensorboard=False, **OPEN, **self.arm.settings,
        )  # fmt: skip

    def round(self, number: int) -> Path:
        """Where a round keeps its files."""
        return self.folder / f"round-{number}"

    def evaluation(self, number: int) -> Path:
        """Where a round's metrics are."""
        return self.folder / "evaluations" / f"round-{number}.json"

    def result(self, number: int) -> Path:
        """What came of a round, written when all of it is done; see `results.row`."""
        return self.folder / "results" / f"round-{number}.json"

    @property
    def results(self) -> list[dict[str, Any]]:
        """Of the rounds that are done, one that failed included."""
        files = [self.result(number) for number in range(1, self.arm.rounds + 1)]
        return [read_json(file) for file in files if file.exists()]

    @property
    def left(self) -> list[int]:
        """The rounds that are yet to be done; none after one that failed."""
        results = self.results
        failed = bool(results) and "failed" in results[-1]
        return [] if failed else list(range(len(results) + 1, self.arm.rounds + 1))

    def seconds(self, number: int) -> float:
        """What a round took, its evaluation included."""
        stages = stage_times(self.folder / "stages.jsonl")
        return sum(s["ended"] - s["began"] for s in stages if s["stage"].startswith(f"round {number}: "))

    def serving(self, start: str) -> str:
        """The version that its next step expects to serve: the last that it promoted, or the one it starts from."""
        promoted = [self.round(number) / "promotion.json" for number in range(1, self.arm.rounds + 1)]
        done = [file for file in promoted if file.exists()]
        return str(read_json(done[-1])["version"]) if done else start


def trials(study: Path, arms: Sequence[Arm], seeds: int) -> list[Trial]:
    """All arms with the first seed, then all with the next: a study that is cut short has every table."""
    return [Trial(study, arm, seed) for seed in range(seeds) for arm in arms]
