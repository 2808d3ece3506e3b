"""The figures of each round from the files in its folder, and the costs of its stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainer.evaluation.pseudo_labels.figures import without_truth
from trainer.files import read_json, read_jsonl
from trainer.promotion.behaviour import ordered
from trainer.voting.groups import Group, pairs_of
from trainer.voting.votes import PairVotes, load, margin

AUDITED = ("accuracy_on_audit", "pairs_audited", "accuracy", "position_by_difference", "changes")
"""The parts of an audit that the report holds; the example pairs are on the page."""
QUARTERS = 4
Scores = Mapping[str, float]


def folders(run: Path) -> list[Path]:
    """The rounds' folders, first to last."""
    return sorted(run.glob("round-*"), key=lambda folder: int(folder.name.removeprefix("round-")))


def steps(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a round's training, a row a step."""
    return list(read_jsonl(folder / "train" / "steps.jsonl"))


def of_round(run: Path, number: int, folder: Path) -> dict[str, Any]:
    """The figures of round `number`; 0 is the base, which has only an evaluation."""
    entry: dict[str, Any] = {"round": number}
    evaluation = run / "evaluations" / f"round-{number}.json"
    if evaluation.exists():
        entry |= read_json(evaluation)
    if number == 0:
        return entry
    if (folder / "start.json").exists():
        entry["settings"] = read_json(folder / "start.json")["settings"]
    votes, trained = load(folder / "votes.jsonl"), steps(folder)
    if votes:
        entry["vote"] = _votes(folder, votes)
    if trained:
        entry["training"] = _training(trained)
    for name in ("pool", "memory", "self_check", "gate", "promotion", "collapse", "rollback"):
        if (folder / f"{name}.json").exists():
            entry[name] = read_json(folder / f"{name}.json")
    if votes and "gate" in entry:
        entry["gate"] |= _held_back(folder, votes, entry["gate"])
    return entry


def by_margin(
    votes: Sequence[PairVotes], held_back: Sequence[Group], before: Scores, after: Scores
) -> list[dict[str, Any]]:
    """Held-back pairs from the closest to the most decided, a quarter a row: the mean margin of their votes, their
    number, and the share ordered as voted by the scores before and after. Ties of the votes are left out."""
    asked, scored = set(map(frozenset, pairs_of(held_back))), before.keys() & after.keys()
    decided = [vote for vote in votes if frozenset((vote.first, vote.second)) in asked and vote.label in (0, 1)]
    known = sorted((vote for vote in decided if {vote.first, vote.second} <= scored), key=margin)
    quarters = [[known[place] for place in places] for places in np.array_split(np.arange(len(known)), QUARTERS)]
    return [
        {
            "margin": sum(map(margin, part)) / len(part),
            "pairs": len(part),
            "before": _agreement(part, before),
            "after": _agreement(part, after),
        }
        for part in quarters
        if part
    ]


def costs(stages: Sequence[dict[str, Any]], rounds: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The costs of stages in the order in which they began: seconds over all attempts, share of the total, counts."""
    seconds: dict[str, float] = {}
    for stage in stages:
        seconds[stage["stage"]] = seconds.get(stage["stage"], 0.0) + stage["ended"] - stage["began"]
    total = sum(seconds.values())
    counts = {f"round {entry['round']}: {name}": found for entry in rounds for name, found in _counts(entry).items()}
    return [
        {"stage": stage, "seconds": taken, "share": taken / total if total else 0.0, "counts": counts.get(stage, {})}
        for stage, taken in seconds.items()
    ]


def _held_back(folder: Path, votes: list[PairVotes], gate: dict[str, Any]) -> dict[str, Any]:
    """The agreement of the gate's scores with the votes on held-back images; empty without scores."""
    before, after = (gate.get(when) or {} for when in ("before", "after"))
    if not (before.get("scores") and after.get("scores")):
        return {}
    held_back = read_json(folder / "pairs.json")["held_back"]
    return {"agreement_by_margin": by_margin(votes, held_back, before["scores"], after["scores"])}


def _votes(folder: Path, votes: list[PairVotes]) -> dict[str, Any]:
    """The quality of a round's votes: their own statistics and, after an audit, their accuracy."""
    groups, audited = folder / "pairs.json", folder / "audit.json"
    asked = [group for part in read_json(groups).values() for group in part] if groups.exists() else []
    audit = read_json(audited) if audited.exists() else {}
    return without_truth(votes, asked) | {name: audit[name] for name in AUDITED if name in audit}


def _training(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The means of the first and the last tenth of the steps, and the time of all."""
    tenth = max(1, len(rows) // 10)
    return {
        "steps": len(rows),
        "skipped": sum(row.get("skipped", 0) for row in rows),
        "first": _means(rows[:tenth]),
        "last": _means(rows[-tenth:]),
        "rollout_seconds": sum(row.get("rollout_seconds", 0) for row in rows),
        "update_seconds": sum(row.get("update_seconds", 0) for row in rows),
    }


def _means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Of the figures that all rows have; a skipped step may lack one."""
    names = [name for name in rows[-1] if all(isinstance(row.get(name), float) for row in rows)]
    return {name: sum(row[name] for row in rows) / len(rows) for name in names}


def _agreement(votes: Sequence[PairVotes], scores: Scores) -> float:
    agreed = [ordered(scores[vote.first] - scores[vote.second], vote.label or 0.0) for vote in votes]
    return sum(agreed) / len(agreed)


def _counts(entry: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Counts by stage of a round."""
    found: dict[str, dict[str, int]] = {}
    if "files" in entry.get("pool", {}):
        found["pool"] = {"files": entry["pool"]["files"], "originals": entry["pool"]["originals"]}
    if "vote" in entry:
        found["votes"] = {"pairs": entry["vote"]["pairs"], "votes": round(entry["vote"]["votes"])}
    if "training" in entry:
        training = entry["training"]
        found["GRPO"] = {
            "steps": training["steps"],
            "s of rollouts": round(training["rollout_seconds"]),
            "s of updates": round(training["update_seconds"]),
        }
    return found
