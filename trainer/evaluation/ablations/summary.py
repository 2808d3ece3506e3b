"""Means and spreads over seeds of what the tables show: `trainer/evaluation/ablations.json`, from `results.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from scipy.stats import ttest_1samp

from trainer.evaluation.ablations.arms import ARMS
from trainer.evaluation.ablations.figures import FIGURES
from trainer.evaluation.ablations.layout import ABLATIONS, Ablation, Line

LEVEL = 0.95


def summarise(results: Mapping[str, Any]) -> dict[str, Any]:
    """Every table as far as it goes: lines and comparisons without a seed are left out, and tables without a line."""
    tables = {name: _table(ablation, results) for name, ablation in ABLATIONS.items()}
    return {"scale": results["scale"], "tables": {name: table for name, table in tables.items() if table["lines"]}}


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
    lines = [_line(line, rows[line.label], ablation.figures, results) for line in ablation.lines if rows[line.label]]
    return {
        "title": ablation.title,
        "figures": list(ablation.figures),
        "lines": lines,
        "compared": [_compared(one, rows, ablation.figures[0]) for one in ablation.compared if _both(one, rows)],
    }


def _rows(line: Line, results: Mapping[str, Any]) -> dict[int, Any]:
    """Seed -> row of `results.json`; of a starting checkpoint the same for every seed that the arm was run with."""
    of_arm = [row for row in results["rounds"] if row["arm"] == line.arm and "failed" not in row]
    if line.round:
        return {row["seed"]: row for row in of_arm if row["round"] == line.round}
    start = results["starts"].get(ARMS[line.arm].start)
    return {row["seed"]: start for row in of_arm if row["round"] == 1} if start else {}


def _line(line: Line, rows: Mapping[int, Any], figures: Sequence[str], results: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"label": line.label, "paper": line.paper, "seeds": len(rows) if line.round else None}
    for name in figures:
        known = list(_by_seed(rows, name).values())
        found[name] = (spread(known) if line.round else {"mean": known[0], "spread": None}) if known else None
    if line.round:
        found["failed"] = sum(1 for row in results["rounds"] if _failed(row, line))
        found["gate_passed"] = sum(1 for row in rows.values() if row["gate"]["passed"])
    return found


def _failed(row: Mapping[str, Any], line: Line) -> bool:
    """A trial that failed in this round, or in one before."""
    return "failed" in row and row["arm"] == line.arm and row["round"] <= line.round


def _both(labels: tuple[str, str], rows: Mapping[str, Mapping[int, Any]]) -> bool:
    return bool(rows[labels[0]].keys() & rows[labels[1]].keys())


def _compared(labels: tuple[str, str], rows: Mapping[str, Mapping[int, Any]], figure: str) -> dict[str, Any]:
    first, second = (_by_seed(rows[label], figure) for label in labels)
    return {"first": labels[0], "second": labels[1], "figure": figure, **difference(first, second)}


def _by_seed(rows: Mapping[int, Any], figure: str) -> dict[int, float]:
    return {seed: value for seed, row in rows.items() if (value := FIGURES[figure].of(row)) is not None}
