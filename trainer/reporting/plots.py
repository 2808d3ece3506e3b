"""The report's plots, as SVG texts to put into a page."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

from trainer.files import read_jsonl
from trainer.voting.vote import load

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes


def of_run(run: Path, report: dict[str, Any]) -> dict[str, str]:
    """Title -> SVG, for everything the run has data for."""
    found = {}
    if any("benchmarks" in entry for entry in report["rounds"]):
        found["PLCC of each benchmark after each round"] = _draw(lambda axes: _plcc(axes, report["rounds"]))
    steps = [(entry["round"], _steps(run, entry["round"])) for entry in report["rounds"]]
    steps = [(number, rows) for number, rows in steps if rows]
    for title, name in (
        ("Reward a step", "reward"), ("KL to the round's start a step", "kl"), ("Entropy a token a step", "entropy"),
        ("Unreadable answers a step", "unreadable"), ("Spread of the scores a step", "score_spread"),
        ("Engine against torch: mean |ratio - 1| a step", "ratio_error"),
    ):  # fmt: skip
        if steps:
            found[title] = _draw(partial(_lines, rounds=steps, name=name))
    if (run / "round-1" / "votes.jsonl").exists():
        found["Vote margins"] = _draw(lambda axes: _margins(axes, run, report["rounds"]))
    if (run / "traffic.jsonl").exists():
        found["Traffic: seconds a request over time, swaps marked"] = _draw(lambda axes: _traffic(axes, run, report))
    return found


def _draw(plot: Callable[[Axes], None]) -> str:
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    plot(axes)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    plt.close(figure)
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def _steps(run: Path, number: int) -> list[dict[str, Any]]:
    return list(read_jsonl(run / f"round-{number}" / "train" / "steps.jsonl"))


def _plcc(axes: Axes, rounds: list[dict[str, Any]]) -> None:
    evaluated = [entry for entry in rounds if "benchmarks" in entry]
    names = [*evaluated[0]["benchmarks"], "weighted"]
    width = 0.8 / len(evaluated)
    for place, entry in enumerate(evaluated):
        heights = [metrics["plcc"] for metrics in entry["benchmarks"].values()] + [entry["weighted_plcc"]]
        label = f"round {entry['round']}" if entry["round"] else "base"
        axes.bar([n + place * width for n in range(len(names))], heights, width, label=label)
    axes.set_xticks([n + 0.4 - width / 2 for n in range(len(names))], names, rotation=25, ha="right", fontsize=8)
    axes.set_ylabel("PLCC (raw)")
    axes.legend(fontsize=8, ncols=3)


def _lines(axes: Axes, rounds: list[tuple[int, list[dict[str, Any]]]], name: str) -> None:
    for number, rows in rounds:
        axes.plot([row["step"] for row in rows], [row[name] for row in rows], label=f"round {number}", linewidth=1)
    axes.set_xlabel("step")
    axes.legend(fontsize=8)


def _margins(axes: Axes, run: Path, rounds: list[dict[str, Any]]) -> None:
    for entry in rounds[1:]:
        votes = load(run / f"round-{entry['round']}" / "votes.jsonl")
        margins = [
            abs(vote.first_votes - vote.second_votes) / (vote.first_votes + vote.second_votes)
            for vote in votes
            if vote.label is not None
        ]
        axes.hist(margins, bins=17, range=(0, 1), histtype="step", label=f"round {entry['round']}")
    axes.set_xlabel("|votes for one - votes for the other| / readable votes")
    axes.set_ylabel("pairs")
    axes.legend(fontsize=8)


def _traffic(axes: Axes, run: Path, report: dict[str, Any]) -> None:
    rows = list(read_jsonl(run / "traffic.jsonl"))
    start = rows[0]["time"] if rows else 0.0
    for version in dict.fromkeys(row["version"] for row in rows):
        shown = [row for row in rows if row["version"] == version]
        label = version or "failed"
        axes.plot([r["time"] - start for r in shown], [r["seconds"] for r in shown], ".", markersize=2, label=label)
    for stage in report["stages"]:
        if "promotion" in stage["stage"]:
            axes.axvspan(stage["began"] - start, stage["ended"] - start, color="black", alpha=0.4, linewidth=1)
    axes.set_yscale("log")
    axes.set_xlabel("seconds")
    axes.set_ylabel("seconds a request")
    axes.legend(fontsize=8)
