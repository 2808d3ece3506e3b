"""Plots as SVG texts for a page. Lines and letters take the page's own colour."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

COLOURS = ("#2f8f83", "#c98a2b", "#b4533c", "#5b7db1", "#8a6bb0")
PAGE_COLOUR = "#010203"
"""Stands for the colour of the page's letters."""
_STYLE: dict[str, Any] = {
    **{f"{part}.color": PAGE_COLOUR for part in ("text", "xtick", "ytick")},
    "axes.labelcolor": PAGE_COLOUR,
    "axes.edgecolor": PAGE_COLOUR,
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.15,
    "grid.color": PAGE_COLOUR,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "font.size": 10,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "savefig.transparent": True,
    "svg.hashsalt": "report",
}


def draw(plot: Callable[[Axes], None], size: tuple[float, float] = (4.6, 2.7), projection: str | None = None) -> str:
    """The SVG that `plot` draws into axes of a figure of `size` inches; `projection` may be "polar"."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=size, layout="constrained", subplot_kw={"projection": projection})
        plot(axes)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)
    return buffer.getvalue()[buffer.getvalue().index("<svg") :].replace(PAGE_COLOUR, "currentColor")


def plcc_bars(axes: Axes, names: Sequence[str], heights: Mapping[str, Sequence[float]]) -> None:
    """PLCC in groups of bars: a group for each name, with a bar for each label of `heights`."""
    width = 0.8 / len(heights)
    for place, (label, values) in enumerate(heights.items()):
        lefts = [n + place * width for n in range(len(names))]
        axes.bar(lefts, values, 0.9 * width, label=label, color=COLOURS[place % len(COLOURS)])
    axes.set_xticks([n + 0.4 - width / 2 for n in range(len(names))], [name.replace("_", "\n") for name in names])
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("PLCC (raw)")
    axes.legend(ncols=len(heights), loc="lower left", bbox_to_anchor=(0, 1))
