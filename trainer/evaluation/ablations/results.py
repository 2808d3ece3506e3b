"""What came of every round that a study has run so far: `results.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from trainer.evaluation.ablations.arms import ARMS, Start
from trainer.evaluation.ablations.trial import Scale, Trial, trials
from trainer.evaluation.averages import plcc_gain_percent
from trainer.files import read_json
from trainer.promotion import criteria
from trainer.promotion.behaviour import Behaviour
from trainer.reporting.rounds import of_round
from trainer.settings.evolve import EvolveSettings

KEPT = ("version", "benchmarks", "weighted_plcc", "unreadable")
VOTES = ("pairs", "votes", "ties", "share_for_the_image_shown_first", "position", "accuracy_on_audit", "pairs_audited")
"""Of what the report of a run tells of a round."""


def collect(study: Path) -> dict[str, Any]:
    """The starting checkpoints' metrics, the scale, and a row a round, of all arms and seeds that were begun."""
    seeds = [int(folder.name.removeprefix("seed-")) for folder in study.glob("seed-*")]
    begun = trials(study, list(ARMS.values()), max(seeds, default=-1) + 1)
    starts = {file.stem: read_json(file) for file in sorted((study / "starts").glob("*.json"))}
    return {"scale": _scale(begun), "starts": starts, "rounds": [row for trial in begun for row in trial.results]}


def row(trial: Trial, number: int, failed: str | None) -> dict[str, Any]:
    """What came of a round; `failed`: why it has no metrics."""
    found = of_round(trial.folder, number, trial.round(number))
    told = {"arm": trial.arm.name, "seed": trial.seed, "round": number, "seconds": trial.seconds(number)}
    if "vote" in found:
        told["vote"] = {name: found["vote"][name] for name in VOTES if name in found["vote"]}
    if "gate" in found:
        told["gate"] = opinion(found["gate"])
    if failed:
        return told | {"failed": failed}
    start = read_json(starting(trial.study, trial.arm.start))
    gain = plcc_gain_percent(start["benchmarks"], found["benchmarks"])
    return told | {name: found[name] for name in KEPT} | {"relative_gain_percent": gain}


def starting(study: Path, start: Start) -> Path:
    """Where the metrics of a starting checkpoint are."""
    return study / "starts" / f"{start}.json"


def _scale(begun: Sequence[Trial]) -> dict[str, int]:
    """The settings that all trials share (`Scale`); none before the first."""
    settings = [read_json(file) for trial in begun if (file := trial.folder / "settings.json").exists()]
    return {field.name: settings[0][field.name] for field in fields(Scale)} if settings else {}


def opinion(verdict: dict[str, Any]) -> dict[str, Any]:
    """What the gate would have said by its default limits, from what it saw (`gate.json`)."""
    if verdict["after"] is None:
        return {"passed": False, "reasons": verdict["reasons"]}
    before, after = (Behaviour(**verdict[when]) for when in ("before", "after"))
    found = criteria.judge(before, after, EvolveSettings.model_construct())
    return {"passed": found.passed, "reasons": found.reasons, "before": before.figures(), "after": after.figures()}
