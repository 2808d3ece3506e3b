"""The plots of the report and of the quality of votes, as SVG texts for a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from trainer.files import read_jsonl
from trainer.reporting.drawing import COLOURS, PAGE_COLOUR, draw, plcc_bars
from trainer.reporting.rounds import folders, steps
from trainer.voting.votes import load, margin

CURVES = {
    "reward": "Reward",
    "kl": "KL to the round's start",
    "entropy": "Entropy a token",
    "score_spread": "Spread of the scores",
    "unreadable": "Unreadable answers",
    "cut_off": "Answers cut off by the token limit",
    "mismatch": "Engine against torch, same weights: mean |ratio - 1|",
    "ratio": "Policy against the one that sampled: mean ratio",
    "ratio_max": "The same: largest ratio",
    "skipped": "Steps skipped: loss or gradients not finite",
}
"""Titles of a step's metrics; the others are titled by their names."""
_NO_CURVES = {"step", "shared_prefix"}
_SMOOTHED = 10
Figures = Mapping[str, Any]
"""See `trainer.evaluation.pseudo_labels.figures`."""
Points = Callable[[Figures], Sequence[tuple[float, Mapping[str, float]]]]
"""The places of a line's points, and their rates."""


def of_run(run: Path, report: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Part of the page -> title -> SVG, for all parts that the run has data for."""
    return {
        "gains": _gains(report["rounds"]),
        "votes": _votes(run),
        "quality": vote_plots({f"round {e['round']}": e["vote"] for e in report["rounds"] if "vote" in e}),
        **{f"gate {entry['round']}": _gate(entry["gate"]) for entry in report["rounds"] if "gate" in entry},
        "training": _training(run),
        "traffic": _traffic(run, report),
    }


def vote_plots(found: Mapping[str, Figures]) -> dict[str, str]:
    """Title -> SVG, with a line for each round or version by its name; empty without known truth."""
    known = {name: figures for name, figures in found.items() if "accuracy" in figures}
    if not known:
        return {}
    return {
        "Right, by the margin of the vote": draw(partial(_by_margin, known)),
        "Right, by the true difference": draw(partial(_by_difference, known)),
        "Right, by the winner's share of the votes": draw(partial(_calibration, known)),
        "Orders that contradict each other": draw(partial(_flips, known)),
        "For the image shown first": draw(partial(_shown_first, known)),
    }


def _gains(rounds: list[dict[str, Any]]) -> dict[str, str]:
    evaluated = [entry for entry in rounds if "benchmarks" in entry]
    return {"PLCC of each set": draw(lambda axes: _plcc(axes, evaluated), (9.0, 3.0))} if evaluated else {}


def _votes(run: Path) -> dict[str, str]:
    margins = {folder.name: [margin(vote) for vote in load(folder / "votes.jsonl")] for folder in folders(run)}
    margins = {name: values for name, values in margins.items() if values}
    return {"How decided the pairs are": draw(lambda axes: _margins(axes, margins))} if margins else {}


def _gate(gate: dict[str, Any]) -> dict[str, str]:
    rows = gate.get("agreement_by_margin", [])
    return {"Held-back pairs scored in the order voted": draw(partial(_agreement, rows))} if rows else {}


def _training(run: Path) -> dict[str, str]:
    rounds = {folder.name: rows for folder in folders(run) if (rows := steps(folder))}
    names = dict.fromkeys(name for rows in rounds.values() for name in rows[-1] if name not in _NO_CURVES)
    ordered = [name for name in CURVES if name in names] + [name for name in names if name not in CURVES]
    return {CURVES.get(name, name.replace("_", " ")): draw(partial(_curves, rounds, name)) for name in ordered}


def _traffic(run: Path, report: dict[str, Any]) -> dict[str, str]:
    rows = list(read_jsonl(run / "traffic.jsonl"))
    swaps = [stage for stage in report["stages"] if "promotion" in stage["stage"]]
    return (
        {"Seconds a request, swaps marked": draw(lambda axes: _requests(axes, rows, swaps), (9.0, 3.0))} if rows else {}
    )


def _plcc(axes: Axes, evaluated: list[dict[str, Any]]) -> None:
    heights = {
        f"round {entry['round']}" if entry["round"] else "base": [
            *(metrics["plcc"] for metrics in entry["benchmarks"].values()),
            entry["weighted_plcc"],
        ]
        for entry in evaluated
    }
    plcc_bars(axes, [*evaluated[0]["benchmarks"], "weighted"], heights)


def _curves(rounds: dict[str, list[dict[str, Any]]], name: str, axes: Axes) -> None:
    """Every step, faint, and a running mean."""
    for number, (label, rows) in enumerate(rounds.items()):
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        if points:
            colour = COLOURS[number % len(COLOURS)]
            places, values = zip(*points, strict=True)
            axes.plot(places, values, color=colour, alpha=0.3, linewidth=0.8)
            axes.plot(places, _running(values), color=colour, linewidth=1.6, label=label.replace("-", " "))
    axes.set_xlabel("step")
    axes.legend()


def _running(values: Sequence[float]) -> list[float]:
    windows = [values[max(0, place - _SMOOTHED + 1) : place + 1] for place in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def _margins(axes: Axes, margins: dict[str, list[float]]) -> None:
    for name, values in margins.items():
        axes.hist(values, bins=17, range=(0, 1), histtype="step", linewidth=1.6, label=name.replace("-", " "))
    axes.set_xlabel("|votes for one - for the other| / readable votes")
    axes.set_ylabel("pairs")
    axes.legend(loc="upper left")


def _agreement(rows: list[dict[str, Any]], axes: Axes) -> None:
    for when in ("before", "after"):
        axes.plot([row["margin"] for row in rows], [row[when] for row in rows], "o-", label=when)
    axes.set_xlabel("margin of the votes, mean of a quarter of the pairs")
    axes.set_ylabel("share in that order")
    axes.set_ylim(0, 1.02)
    axes.legend(loc="lower right")


def _requests(axes: Axes, rows: list[dict[str, Any]], swaps: list[dict[str, Any]]) -> None:
    start = rows[0]["time"]
    for version in dict.fromkeys(row["version"] for row in rows):
        shown = [row for row in rows if row["version"] == version]
        label = version or "failed"
        axes.plot([r["time"] - start for r in shown], [r["seconds"] for r in shown], ".", markersize=2.5, label=label)
    for swap in swaps:
        axes.axvspan(swap["began"] - start, swap["ended"] - start, color=PAGE_COLOUR, alpha=0.5, linewidth=1)
    axes.set_yscale("log")
    axes.set_xlabel("seconds")
    axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1), markerscale=4)


def _by_margin(found: Mapping[str, Figures], axes: Axes) -> None:
    _lines(axes, found, lambda figures: _rates(figures["accuracy"]["by_margin"], "label"))
    _lines(axes, found, lambda figures: _rates(figures["accuracy"]["by_margin"], "majority"), dashed=True)
    _half(axes)
    axes.set_xlabel("margin of the votes; dashed: without the tie margin")


def _by_difference(found: Mapping[str, Figures], axes: Axes) -> None:
    _lines(axes, found, lambda figures: _rates(figures["accuracy"]["by_difference"], "label"))
    _lines(axes, found, lambda figures: _rates(figures["accuracy"]["by_difference"], "majority"), dashed=True)
    _half(axes)
    axes.set_xlabel("true difference; dashed: without the tie margin")


def _calibration(found: Mapping[str, Figures], axes: Axes) -> None:
    _lines(axes, found, lambda figures: _rates(figures["accuracy"]["calibration"]["rows"], "majority"))
    axes.plot([0.5, 1], [0.5, 1], color=PAGE_COLOUR, linewidth=0.8, alpha=0.5)
    axes.set_xlabel("share of the votes; on the line: as sure as right")


def _flips(found: Mapping[str, Figures], axes: Axes) -> None:
    _lines(axes, found, lambda figures: _positions(figures, "flips"))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("true difference")


def _shown_first(found: Mapping[str, Figures], axes: Axes) -> None:
    _lines(axes, found, lambda figures: _positions(figures, "shown_first"))
    _half(axes)
    axes.set_xlabel("true difference")


def _rates(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, Mapping[str, float]]]:
    return [(row["mean"], row[name]) for row in rows if row[name]]


def _positions(figures: Figures, name: str) -> list[tuple[float, Mapping[str, float]]]:
    return [(row["mean"], row["position"][name]) for row in figures["position_by_difference"]]


def _lines(axes: Axes, found: Mapping[str, Figures], points: Points, *, dashed: bool = False) -> None:
    """Each line with its 95 % interval; a dashed one has neither interval nor name."""
    for number, (name, figures) in enumerate(found.items()):
        places = [place for place, _ in points(figures)]
        share, low, high = ([rate[part] for _, rate in points(figures)] for part in ("share", "low", "high"))
        if dashed:
            axes.plot(places, share, "--", color=f"C{number}", linewidth=1)
        else:
            axes.plot(places, share, "o-", color=f"C{number}", markersize=3.5, label=name)
            axes.fill_between(places, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
    axes.yaxis.set_major_formatter("{x:.0%}")
    if not dashed:
        axes.legend()


def _half(axes: Axes) -> None:
    axes.axhline(0.5, color=PAGE_COLOUR, linewidth=0.8, alpha=0.5)
