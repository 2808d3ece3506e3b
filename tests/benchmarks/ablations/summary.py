"""Means and spreads over seeds: what `results/ablations.json` holds, from a study's `results.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from scipy.stats import ttest_1samp

from tests.benchmarks.ablations.arms import ARMS
from tests.benchmarks.ablations.figures import FIGURES
from tests.benchmarks.ablations.layout import ABLATIONS, Ablation, Line
from tests.benchmarks.leaderboard import Leaderboard

LEVEL = 0.95
PAPER = "EvoQuality, arXiv 2509.25787"


def summarise(results: Mapping[str, Any]) -> dict[str, Any]:
    """Every table as far as it goes: lines that no seed has come to are left out, and tables without an arm's line."""
    tables = {name: _table(ablation, results) for name, ablation in ABLATIONS.items()}
    shown = {name: table for name, table in tables.items() if any(line["seeds"] is not None for line in table["lines"])}
    return {"paper": PAPER, "scale": results["scale"], "tables": shown}


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation (n - 1) over seeds; none of a single one."""
    return {"mean": mean(values), "spread": stdev(values) if len(values) > 1 else None}


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> dict[str, Any]:
    """The mean difference of (seed -> figure) over the seeds that both have, with its paired t interval.

    Of three seeds the interval is 4.3 standard errors wide to either side: it tells large effects alone.
    """
    apart = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
    found: dict[str, Any] = {"seeds": len(apart), "difference": mean(apart), "low": None, "high": None}
    if len(apart) > 1:
        low, high = ttest_1samp(apart, 0).confidence_interval(LEVEL)
        found |= {"low": float(low), "high": float(high)}
    return found


def _table(ablation: Ablation, results: Mapping[str, Any]) -> dict[str, Any]:
    rows = {line.label: _rows(line, results) for line in ablation.lines}
    failed = {line.label: sum(1 for row in results["rounds"] if _failed(row, line)) for line in ablation.lines}
    return {
        "title": ablation.title,
        "figures": list(ablation.figures),
        "lines": [
            _line(line, rows[line.label], ablation.figures, failed[line.label])
            for line in ablation.lines
            if rows[line.label] or failed[line.label]
        ],
        "compared": [_compared(one, rows, ablation.figures[0]) for one in ablation.compared if _both(one, rows)],
    }


def _rows(line: Line, results: Mapping[str, Any]) -> dict[int, Any]:
    """Seed -> row of `results.json`; of a starting checkpoint the same for every seed."""
    done = [row for row in results["rounds"] if "failed" not in row]
    if line.round:
        return {row["seed"]: row for row in done if (row["arm"], row["round"]) == (line.arm, line.round)}
    start = ARMS[line.arm].start
    return {row["seed"]: results["starts"][start] for row in done if ARMS[row["arm"]].start == start}


def _line(line: Line, rows: Mapping[int, Any], figures: Sequence[str], failed: int) -> dict[str, Any]:
    """`seeds`: those with metrics; None of a starting checkpoint, which has no seed. `failed`: those without."""
    known = {name: list(_by_seed(rows, name).values()) for name in figures}
    told = {"label": line.label, "paper": _paper(line.paper), "seeds": None, "failed": failed}
    if not line.round:
        return told | {name: {"mean": values[0], "spread": None} if values else None for name, values in known.items()}
    told |= {"seeds": len(rows), "gate_passed": sum(1 for row in rows.values() if row["gate"]["passed"])}
    return told | {name: spread(values) if values else None for name, values in known.items()}


def _paper(told: float | str) -> float | str:
    return Leaderboard.load().weighted(told) if isinstance(told, str) and told.startswith("paper:") else told


def _failed(row: Mapping[str, Any], line: Line) -> bool:
    """Whether this is the end of a trial of the line's arm, in its round or before."""
    return "failed" in row and row["arm"] == line.arm and row["round"] <= line.round


def _both(labels: tuple[str, str], rows: Mapping[str, Mapping[int, Any]]) -> bool:
    return bool(rows[labels[0]].keys() & rows[labels[1]].keys())


def _compared(labels: tuple[str, str], rows: Mapping[str, Mapping[int, Any]], figure: str) -> dict[str, Any]:
    first, second = (_by_seed(rows[label], figure) for label in labels)
    return {"first": labels[0], "second": labels[1], "figure": figure, **difference(first, second)}


def _by_seed(rows: Mapping[int, Any], figure: str) -> dict[int, float]:
    return {seed: value for seed, row in rows.items() if (value := FIGURES[figure].of(row)) is not None}
