"""Plots of how good votes are: a line for each round, or for each version, by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes

from trainer.reporting.drawing import PAGE_COLOUR, draw

Figures = Mapping[str, Any]
"""See `trainer.evaluation.pseudo_labels.figures`."""
Points = Callable[[Figures], Sequence[tuple[float, Mapping[str, float]]]]
"""Where the points of a line are, and their rates."""


def of(found: Mapping[str, Figures]) -> dict[str, str]:
    """Title -> SVG; none where nobody knows the truth."""
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
    """Each with its interval of 95 %; a dashed one has neither that nor a name of its own."""
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
