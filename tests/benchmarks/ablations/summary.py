"""Summarises a study over its seeds (`results/ablations.json`) and shows it as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import ttest_1samp

from tests.benchmarks.ablations.arms import ABLATIONS, ARMS, FIGURES, Ablation, Line
from tests.benchmarks.leaderboard import Leaderboard
from tests.benchmarks.markdown import markdown
from trainer.files import read_json

LEVEL = 0.95
PAPER = "EvoQuality, arXiv 2509.25787"
FILE = Path(__file__).parents[1] / "results/ablations.json"


def summarise(results: Mapping[str, Any]) -> dict[str, Any]:
    """All tables. Lines that no seed has reached are left out, as are tables without a finished round."""
    tables = {name: _table(ablation, results) for name, ablation in ABLATIONS.items()}
    shown = {name: table for name, table in tables.items() if any(line["seeds"] is not None for line in table["lines"])}
    return {"paper": PAPER, "scale": results["scale"], "tables": shown}


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation (n - 1) over seeds; the latter is None for a single seed."""
    return {"mean": mean(values), "spread": stdev(values) if len(values) > 1 else None}


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> dict[str, Any]:
    """Mean difference of (seed -> figure) over the common seeds, with its paired t interval.

    With three seeds the interval reaches 4.3 standard errors to either side, so it shows only large effects.
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
    """Seed -> row of `results.json`; a starting checkpoint has the same row for every seed."""
    done = [row for row in results["rounds"] if "failed" not in row]
    if line.round:
        return {row["seed"]: row for row in done if (row["arm"], row["round"]) == (line.arm, line.round)}
    start = ARMS[line.arm].start
    return {row["seed"]: results["starts"][start] for row in done if ARMS[row["arm"]].start == start}


def _line(line: Line, rows: Mapping[int, Any], figures: Sequence[str], failed: int) -> dict[str, Any]:
    """`seeds`: number with metrics, None for a starting checkpoint. `failed`: number without metrics."""
    known = {name: list(_by_seed(rows, name).values()) for name in figures}
    result = {"label": line.label, "paper": _paper_figure(line.paper), "seeds": None, "failed": failed}
    if not line.round:
        start = {name: {"mean": values[0], "spread": None} if values else None for name, values in known.items()}
        return result | start
    result |= {"seeds": len(rows), "gate_passed": sum(1 for row in rows.values() if row["gate"]["passed"])}
    return result | {name: spread(values) if values else None for name, values in known.items()}


def _paper_figure(paper: float | str) -> float | str:
    return Leaderboard.load().weighted(paper) if isinstance(paper, str) and paper.startswith("paper:") else paper


def _failed(row: Mapping[str, Any], line: Line) -> bool:
    """True if the row ends a trial of the line's arm in the line's round or earlier."""
    return "failed" in row and row["arm"] == line.arm and row["round"] <= line.round


def _both(labels: tuple[str, str], rows: Mapping[str, Mapping[int, Any]]) -> bool:
    return bool(rows[labels[0]].keys() & rows[labels[1]].keys())


def _compared(labels: tuple[str, str], rows: Mapping[str, Mapping[int, Any]], figure: str) -> dict[str, Any]:
    first, second = (_by_seed(rows[label], figure) for label in labels)
    return {"first": labels[0], "second": labels[1], "figure": figure, **difference(first, second)}


def _by_seed(rows: Mapping[int, Any], figure: str) -> dict[int, float]:
    return {seed: value for seed, row in rows.items() if (value := FIGURES[figure].of(row)) is not None}


def table(name: str) -> str:
    """One ablation (a name in `arms.ABLATIONS`) in Markdown, from the committed file.

    Raises:
        KeyError: the published study lacks this ablation.
        FileNotFoundError: no study was published.
    """
    return in_markdown(read_json(FILE)["tables"][name])


def in_markdown(found: Mapping[str, Any]) -> str:
    """One ablation of `summarise` in Markdown."""
    heading, *lines = _grid(found)
    return markdown(heading, lines)


def page(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """All tables and their comparisons in Markdown."""
    parts = [[f"## {found['title']}", in_markdown(found), *comparisons(found)] for found in tables.values()]
    return "\n\n".join(text for part in parts for text in part) + "\n"


def show(found: Mapping[str, Any], console: Console) -> None:
    """Prints one ablation and its comparisons."""
    heading, *lines = _grid(found)
    shown = Table(*heading, title=found["title"])
    for line in lines:
        shown.add_row(*line)
    console.print(shown)
    for sentence in comparisons(found):
        console.print(sentence, highlight=False)


def comparisons(found: Mapping[str, Any]) -> list[str]:
    """The compared differences as one paragraph; empty without any."""
    if not found["compared"]:
        return []
    heading, level = FIGURES[found["figures"][0]].heading, f"{100 * LEVEL:.0f} %"
    said = "; ".join(f"{one['first']} - {one['second']} {_interval(one)}" for one in found["compared"])
    return [
        f"{heading}, mean difference within a seed with its paired t interval of {level}, wide with few seeds: {said}."
    ]


def _grid(found: Mapping[str, Any]) -> Iterator[list[str]]:
    """The heading, then one row per line."""
    yield ["", *(FIGURES[name].heading for name in found["figures"]), "seeds", "gate would pass", "the paper"]
    for line in found["lines"]:
        figures = [_figure(name, line[name]) for name in found["figures"]]
        yield [line["label"], *figures, _seeds(line), _gate(line), _paper(line["paper"])]


def _figure(name: str, value: Mapping[str, float | None] | None) -> str:
    if value is None:
        return "–"
    digits = FIGURES[name].digits
    shown = f"{value['mean']:.{digits}f}"
    return shown if value["spread"] is None else f"{shown} ± {value['spread']:.{digits}f}"


def _seeds(line: Mapping[str, Any]) -> str:
    if line["seeds"] is None:
        return ""
    return f"{line['seeds']}, {line['failed']} failed" if line["failed"] else str(line["seeds"])


def _gate(line: Mapping[str, Any]) -> str:
    """Number of seeds whose candidate would pass the gate's default limits."""
    return f"{line['gate_passed']} of {line['seeds']}" if line["seeds"] else ""


def _paper(paper: float | str) -> str:
    return paper if isinstance(paper, str) else f"{paper:.3f}"


def _interval(one: Mapping[str, Any]) -> str:
    shown = f"{one['difference']:+.3f}"
    return shown if one["low"] is None else f"{shown} ({one['low']:+.3f} to {one['high']:+.3f})"
