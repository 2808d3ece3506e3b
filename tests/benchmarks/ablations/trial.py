"""Trials and their results. A trial is one arm with one seed: a trainer's run, evaluated after each round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import mean
from typing import Any

from tests.benchmarks.ablations.arms import ARMS, Arm, Start
from trainer.files import read_json
from trainer.progress import stage_times
from trainer.promotion import behaviour, criteria
from trainer.promotion.behaviour import Behaviour
from trainer.reporting.averages import plcc_gain_percent
from trainer.reporting.rounds import of_round
from trainer.settings.evolve import EvolveSettings
from trainer.voting.votes import Pair, labels_of, load

OPEN: dict[str, Any] = {
    "gate_unreadable": 1,
    "gate_agreement_loss": 1,
    "gate_spread": 0,
    "gate_largest_spread": 100,
    "gate_drift": 4,
    "gate_position_bias": 1,
    "regression_drift": 4,
    "collapse_entropy": 0.001,
    "collapse_spread": 0.001,
    "collapse_constant": 1,
    "collapse_unreadable": 0.9,
    "collapse_kl": 30,
}
"""Limits that stop only a broken model: an ablation is judged by its metrics, not by the gate."""
KEPT = ("version", "benchmarks", "weighted_plcc", "unreadable")
VOTES = ("pairs", "votes", "ties", "share_for_the_image_shown_first", "position", "accuracy_on_audit", "pairs_audited")
"""Fields copied from the report of a round."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Size of every trial."""

    groups: int
    samples: int


@dataclass(frozen=True, slots=True)
class Trial:
    """One arm with one seed; its files are in `study`/seed-N/<arm>/."""

    study: Path
    arm: Arm
    seed: int

    @property
    def folder(self) -> Path:
        """Folder of the trainer's run."""
        return self.study / f"seed-{self.seed}" / self.arm.name

    @property
    def name(self) -> str:
        """Name shown in messages."""
        return f"{self.arm.name}, seed {self.seed}"

    def settings(self, rounds: int, scale: Scale, operator: str) -> EvolveSettings:
        """Settings of its first `rounds` rounds. Raises pydantic.ValidationError if the arm's are invalid."""
        return EvolveSettings(
            pool=self.study / "pool",
            run=self.folder,
            store=self.study / "store",
            operator=operator,
            rounds=rounds,
            seed=self.seed,
            groups=scale.groups,
            samples=scale.samples,
            held_back_groups=4,
            tensorboard=False,
            **OPEN,
            **self.arm.settings,
        )

    def round(self, number: int) -> Path:
        """Folder of a round."""
        return self.folder / f"round-{number}"

    def evaluation(self, number: int) -> Path:
        """File of a round's metrics."""
        return self.folder / "evaluations" / f"round-{number}.json"

    def result(self, number: int) -> Path:
        """File of a round's result, written last; see `row`."""
        return self.folder / "results" / f"round-{number}.json"

    @property
    def results(self) -> list[dict[str, Any]]:
        """Results of the finished rounds, a failed one included."""
        files = [self.result(number) for number in range(1, self.arm.rounds + 1)]
        return [read_json(file) for file in files if file.exists()]

    @property
    def left(self) -> list[int]:
        """Numbers of the rounds still to run; none after a failed one."""
        results = self.results
        failed = bool(results) and "failed" in results[-1]
        return [] if failed else list(range(len(results) + 1, self.arm.rounds + 1))

    def seconds(self, number: int) -> float:
        """Duration of a round with its evaluation."""
        stages = stage_times(self.folder / "stages.jsonl")
        return sum(s["ended"] - s["began"] for s in stages if s["stage"].startswith(f"round {number}: "))

    def serving(self, start: str) -> str:
        """Version that its next step expects to be served: the last one it promoted, else `start`."""
        promoted = [self.round(number) / "promotion.json" for number in range(1, self.arm.rounds + 1)]
        done = [file for file in promoted if file.exists()]
        return str(read_json(done[-1])["version"]) if done else start


def trials(study: Path, arms: Sequence[Arm], seeds: int) -> list[Trial]:
    """All arms with the first seed, then with the next, so that an interrupted study has every table."""
    return [Trial(study, arm, seed) for seed in range(seeds) for arm in arms]


def collect(study: Path) -> dict[str, Any]:
    """Metrics of the starting checkpoints, the scale, and one row per finished round of every arm and seed."""
    seeds = [int(folder.name.removeprefix("seed-")) for folder in study.glob("seed-*")]
    begun = trials(study, list(ARMS.values()), max(seeds, default=-1) + 1)
    starts = {file.stem: read_json(file) for file in sorted((study / "starts").glob("*.json"))}
    return {"scale": _scale(begun), "starts": starts, "rounds": [row for trial in begun for row in trial.results]}


def row(trial: Trial, number: int, failed: str | None) -> dict[str, Any]:
    """Result of a round; `failed`: the reason if it has no metrics."""
    found = of_round(trial.folder, number, trial.round(number))
    result = {"arm": trial.arm.name, "seed": trial.seed, "round": number, "seconds": trial.seconds(number)}
    if "vote" in found:
        result["vote"] = {name: found["vote"][name] for name in VOTES if name in found["vote"]}
    if "gate" in found:
        result["gate"] = gate_opinion(found["gate"], _held_back(trial.round(number)))
    if failed:
        return result | {"failed": failed}
    start = read_json(starting(trial.study, trial.arm.start))
    gain = plcc_gain_percent(start["benchmarks"], found["benchmarks"])
    return result | {name: found[name] for name in KEPT} | {"relative_gain_percent": gain}


def starting(study: Path, start: Start) -> Path:
    """File of a starting checkpoint's metrics."""
    return study / "starts" / f"{start}.json"


def _scale(begun: Sequence[Trial]) -> dict[str, int]:
    """Settings that all trials share (`Scale`); empty before the first."""
    settings = [read_json(file) for trial in begun if (file := trial.folder / "settings.json").exists()]
    return {field.name: settings[0][field.name] for field in fields(Scale)} if settings else {}


def gate_opinion(verdict: dict[str, Any], decided: Mapping[Pair, float]) -> dict[str, Any]:
    """The gate's verdict at its default limits, from its measurements and the votes on held-back pairs."""
    if verdict["after"] is None:
        return {"passed": False, "reasons": verdict["reasons"]}
    before, after = (Behaviour(**verdict[when]) for when in ("before", "after"))
    found = criteria.judge(before, after, decided, EvolveSettings.model_construct())
    return {"passed": found.passed, "reasons": found.reasons, "before": before.figures(), "after": after.figures()}


def _held_back(folder: Path) -> dict[Pair, float]:
    """The labels of a round's held-back pairs that the votes decide."""
    return behaviour.decided(read_json(folder / "pairs.json")["held_back"], labels_of(load(folder / "votes.jsonl")))


def remaining(planned: Sequence[Trial]) -> str:
    """Number of rounds left, with an estimate of their time once one is done."""
    left = sum(len(trial.left) for trial in planned)
    said = f"{left} of {sum(trial.arm.rounds for trial in planned)} rounds left"
    seconds = seconds_left(planned)
    return f"{said}, about {seconds / 60:.0f} min" if seconds else said


def seconds_left(planned: Sequence[Trial]) -> float | None:
    """Estimate: rounds of an arm take the mean time of that arm's, else of all arms'. None before the first round."""
    took = [(trial.arm, float(row["seconds"])) for trial in planned for row in trial.results]
    if not took:
        return None
    total = 0.0
    for trial in planned:
        same = [seconds for arm, seconds in took if arm == trial.arm]
        total += len(trial.left) * mean(same or [seconds for _, seconds in took])
    return total
