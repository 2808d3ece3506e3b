"""The figures of one round, from the files in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.evaluation.pseudo_labels.figures import without_truth
from trainer.files import read_json, read_jsonl
from trainer.reporting.agreement import by_margin
from trainer.voting.vote import PairVotes, load

AUDITED = ("accuracy_on_audit", "pairs_audited", "accuracy", "position_by_difference", "changes")
"""What of an audit the report holds; the example pairs are the page's."""


def folders(run: Path) -> list[Path]:
    """The rounds' folders, first to last."""
    return sorted(run.glob("round-*"), key=lambda folder: int(folder.name.removeprefix("round-")))


def steps(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a round's training, a row a step."""
    return list(read_jsonl(folder / "train" / "steps.jsonl"))


def of_round(run: Path, number: int, folder: Path) -> dict[str, Any]:
    """What is known of round `number`; 0 is the base, of which only the evaluation exists."""
    entry: dict[str, Any] = {"round": number}
    evaluation = run / "evaluations" / f"round-{number}.json"
    if evaluation.exists():
        entry |= read_json(evaluation)
    if number == 0:
        return entry
    votes, trained = load(folder / "votes.jsonl"), steps(folder)
    if votes:
        entry["vote"] = _votes(folder, votes)
    if trained:
        entry["training"] = _training(trained)
    for name in ("pool", "gate", "promotion", "collapse", "rollback"):
        if (folder / f"{name}.json").exists():
            entry[name] = read_json(folder / f"{name}.json")
    if votes and "gate" in entry:
        entry["gate"] |= _held_back(folder, votes, entry["gate"])
    return entry


def _held_back(folder: Path, votes: list[PairVotes], gate: dict[str, Any]) -> dict[str, Any]:
    """What the gate's scores of held-back images say of the votes; nothing if there are none."""
    before, after = (gate.get(when) or {} for when in ("before", "after"))
    if not (before.get("scores") and after.get("scores")):
        return {}
    held_back = read_json(folder / "pairs.json")["held_back"]
    return {"agreement_by_margin": by_margin(votes, held_back, before["scores"], after["scores"])}


def _votes(folder: Path, votes: list[PairVotes]) -> dict[str, Any]:
    """The quality of a round's votes: what they tell of themselves and, after an audit, how right they are."""
    groups, audited = folder / "pairs.json", folder / "audit.json"
    asked = [group for part in read_json(groups).values() for group in part] if groups.exists() else []
    audit = read_json(audited) if audited.exists() else {}
    return without_truth(votes, asked) | {name: audit[name] for name in AUDITED if name in audit}


def _training(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The first and the last tenth of the steps, and what they cost."""
    tenth = max(1, len(rows) // 10)
    return {
        "steps": len(rows),
        "first": _means(rows[:tenth]),
        "last": _means(rows[-tenth:]),
        "rollout_seconds": sum(row.get("rollout_seconds", 0) for row in rows),
        "update_seconds": sum(row.get("update_seconds", 0) for row in rows),
    }


def _means(rows: list[dict[str, Any]]) -> dict[str, float]:
    names = [name for name, value in rows[-1].items() if isinstance(value, float) and all(name in row for row in rows)]
    return {name: sum(row[name] for row in rows) / len(rows) for name in names}
