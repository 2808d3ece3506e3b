"""What each stage of a run took, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def costs(stages: Sequence[dict[str, Any]], rounds: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Stages in the order in which they began: seconds over all attempts, share of the total, counts by name."""
    seconds: dict[str, float] = {}
    for stage in stages:
        seconds[stage["stage"]] = seconds.get(stage["stage"], 0.0) + stage["ended"] - stage["began"]
    total = sum(seconds.values())
    counts = {f"round {entry['round']}: {name}": found for entry in rounds for name, found in _counts(entry).items()}
    return [
        {"stage": stage, "seconds": taken, "share": taken / total if total else 0.0, "counts": counts.get(stage, {})}
        for stage, taken in seconds.items()
    ]


def _counts(entry: dict[str, Any]) -> dict[str, dict[str, int]]:
    """What a round's stages went through."""
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
