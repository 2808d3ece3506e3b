"""The report of a run, made only of the files in its folder: `report.json` and a self-contained `report.html`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainer.files import read_json, read_jsonl, write_json, write_text
from trainer.progress import stage_times
from trainer.reporting.averages import plcc_gain_percent
from trainer.reporting.page import render
from trainer.reporting.rounds import costs, folders, of_round


def write_report(run: Path) -> dict[str, Any]:
    """Writes both files from the results so far, and returns the content of `report.json`."""
    report = build(run)
    write_json(run / "report.json", report)
    write_text(run / "report.html", render(run, report))
    return report


def build(run: Path) -> dict[str, Any]:
    """The figures of a run, without the parts that it does not have (yet)."""
    rounds = [of_round(run, number, folder) for number, folder in enumerate([run, *folders(run)])]
    report: dict[str, Any] = {"settings": read_json(run / "settings.json"), "rounds": rounds}
    evaluated = [entry for entry in rounds if "benchmarks" in entry]
    for entry in evaluated:
        entry["relative_gain_percent"] = plcc_gain_percent(evaluated[0]["benchmarks"], entry["benchmarks"])
    if len(evaluated) > 1:
        report["relative_gain_percent"] = evaluated[-1]["relative_gain_percent"]
    votes = [entry["vote"] for entry in rounds if "vote" in entry]
    if votes:
        report["vote"] = _total(votes)
    report["swaps"] = [{"round": entry["round"], **entry["promotion"]} for entry in rounds if "promotion" in entry]
    if (run / "traffic.jsonl").exists():
        report["traffic"] = traffic(read_jsonl(run / "traffic.jsonl"))
    report["stages"] = stage_times(run / "stages.jsonl")
    report["costs"] = costs(report["stages"], rounds)
    if (run / "seconds.json").exists():
        report["seconds_total"] = read_json(run / "seconds.json")["total"]
    return report


def traffic(answers: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The statistics of a client's traffic. Its requests are greedy, so a version always answers each the same way.

    An answer that differs from the other answers of its version to the same question counts as one of mixed versions.
    """
    rows = list(answers)
    by_question: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        if not row["error"]:
            by_question.setdefault((row["question"], row["version"]), Counter())[row["answer"]] += 1
    latencies = sorted(row["seconds"] for row in rows if not row["error"])
    return {
        "requests": len(rows),
        "failed": sum(1 for row in rows if row["error"]),
        "versions_seen": list(dict.fromkeys(row["version"] for row in rows if not row["error"])),
        "mixed_version_answers": sum(counts.total() - counts.most_common(1)[0][1] for counts in by_question.values()),
        "p50_ms": 1000 * latencies[len(latencies) // 2] if latencies else None,
        "p99_ms": 1000 * latencies[int(len(latencies) * 0.99)] if latencies else None,
    }


def _total(votes: list[dict[str, Any]]) -> dict[str, Any]:
    summed = ("pairs", "votes", "exact", "unreadable")
    total: dict[str, Any] = {name: sum(vote[name] for vote in votes) for name in summed}
    audited = [vote for vote in votes if "accuracy_on_audit" in vote]
    if audited:
        pairs = sum(vote["pairs_audited"] for vote in audited)
        total["accuracy_on_audit"] = sum(vote["accuracy_on_audit"] * vote["pairs_audited"] for vote in audited) / pairs
    return total
