"""The self-contained page of a comparison: metrics, plots, and the images with the largest errors."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image

from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.bootstrap import describe
from trainer.evaluation.comparison.comparison import Comparison
from trainer.evaluation.comparison.tables import TITLES, WEIGHTED
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.metrics import fit_logistic
from trainer.reporting.drawing import COLOURS, PAGE_COLOUR, draw
from trainer.reporting.page import filled, thumbnail

SHOWN = 6
MOST_POINTS = 1000
"""Points of a scatter plot, sampled at random; the curve is fitted to all."""


class Miss(NamedTuple):
    """An image with its predicted and mean opinion score."""

    id: str
    picture: str | None
    """A data: URL; None if the file is no longer readable."""
    score: float
    fitted: float
    """Score mapped to the scale of the mean opinion scores."""
    mos: float


def worst(benchmark: Benchmark, evaluation: Evaluation) -> list[Miss]:
    """Images with the largest error of the fitted score, the largest first."""
    scores = evaluation.scores(benchmark.name)
    known = np.isfinite(scores)
    fitted = fit_logistic(scores[known], benchmark.mos[known])(scores)
    order = np.argsort(-np.nan_to_num(np.abs(fitted - benchmark.mos), nan=-1.0), kind="stable")
    return [
        Miss(benchmark.ids[row], _picture(benchmark, row), scores[row], fitted[row], benchmark.mos[row])
        for row in order[: min(SHOWN, int(known.sum()))]
    ]


def _picture(benchmark: Benchmark, row: int) -> str | None:
    try:
        with Image.open(benchmark.images[row]) as picture:
            return thumbnail(picture)
    except OSError:
        return None


def bars(comparison: Comparison) -> dict[str, str]:
    """Title -> bar chart of every benchmark and of their mean."""
    width = max(9.0, 0.28 * len(comparison.evaluations) * (len(comparison.benchmarks) + 1))
    return {"PLCC, with its interval": draw(partial(_bars, comparison), (width, 3.2))}


def radar(comparison: Comparison) -> dict[str, str]:
    """Title -> radar plot of PLCC, as the paper's Figure 1; empty for fewer than three benchmarks."""
    if len(comparison.benchmarks) < 3:
        return {}
    return {"PLCC of each benchmark": draw(partial(_radar, comparison), (5.2, 4.6), "polar")}


def scatter(benchmark: Benchmark, evaluation: Evaluation, colour: int) -> str:
    """Scatter plot of scores and mean opinion scores with the fitted curve."""
    return draw(partial(_scatter, benchmark, evaluation, COLOURS[colour % len(COLOURS)]), (3.6, 3.0))


def _bars(comparison: Comparison, axes: Axes) -> None:
    names = [*comparison.counts, WEIGHTED]
    width = 0.8 / len(comparison.evaluations)
    for place, model in enumerate(comparison.evaluations):
        heights = np.array([*comparison.values(model, "plcc").values(), comparison.weighted(model, "plcc")])
        places = np.arange(len(names)) + place * width
        colour = COLOURS[place % len(COLOURS)]
        axes.bar(places, heights, 0.9 * width, label=model, color=colour)
        axes.errorbar(places, heights, _reach(comparison, model, heights), fmt="none", ecolor=PAGE_COLOUR, elinewidth=1)
    axes.set_xticks(np.arange(len(names)) + 0.4 - width / 2, [name.replace("_", "\n") for name in names])
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("PLCC (raw)")
    axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1))


def _reach(comparison: Comparison, model: str, heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2, sets + 1) distances from each bar's height to the ends of its interval; 0 without one."""
    of_sets = [comparison.intervals.get((model, name), {}).get("plcc") for name in comparison.counts]
    ends = [*of_sets, comparison.weighted_interval(model, "plcc")]
    low, high = np.array([end or (height, height) for end, height in zip(ends, heights, strict=True)]).T
    return np.clip([heights - low, high - heights], 0, None)


def _radar(comparison: Comparison, axes: Axes) -> None:
    names = list(comparison.counts)
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    for place, model in enumerate(comparison.evaluations):
        values = list(comparison.values(model, "plcc").values())
        colour = COLOURS[place % len(COLOURS)]
        axes.plot([*angles, 0], [*values, values[0]], "o-", color=colour, linewidth=1.6, markersize=3, label=model)
        axes.fill(angles, values, color=colour, alpha=0.1)
    axes.set_xticks(angles, [name.replace("_", "\n") for name in names])
    axes.tick_params(axis="x", pad=12)
    axes.set_ylim(min(0.0, *axes.get_ylim()), 1)
    axes.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))


def _scatter(benchmark: Benchmark, evaluation: Evaluation, colour: str, axes: Axes) -> None:
    scores = evaluation.scores(benchmark.name)
    known = np.flatnonzero(np.isfinite(scores))
    curve = fit_logistic(scores[known], benchmark.mos[known])
    shown = np.random.default_rng(0).permutation(known)[:MOST_POINTS]
    size = float(np.clip(2000 / len(shown), 3, 14))
    axes.scatter(scores[shown], benchmark.mos[shown], size, color=colour, alpha=0.5, linewidths=0)
    line = np.linspace(scores[known].min(), scores[known].max(), 200)
    axes.plot(line, curve(line), color=PAGE_COLOUR, linewidth=1.4)
    axes.set_xlabel("score")
    axes.set_ylabel("MOS")


def render(comparison: Comparison) -> str:
    """The page as HTML."""
    models, drawn = list(comparison.evaluations.items()), comparison.bootstrap
    return filled(
        "comparison.html.jinja",
        comparison=comparison,
        titles=TITLES,
        level=f"{drawn.level:.0%}",
        bars=bars(comparison),
        radar=radar(comparison),
        scatters={
            one.name: {model: scatter(one, found, place) for place, (model, found) in enumerate(models)}
            for one in comparison.benchmarks
        },
        misses={one.name: {model: worst(one, found) for model, found in models} for one in comparison.benchmarks},
        kinds={
            one.name: describe(
                one.references, resamples=comparison.bootstrap.resamples, level=comparison.bootstrap.level
            )
            for one in comparison.benchmarks
        },
    )
