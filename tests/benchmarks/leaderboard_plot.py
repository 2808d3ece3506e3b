"""The README's plot of the demo, drawn of the leaderboard's rows as its table is."""

from __future__ import annotations

from functools import partial

from tests.benchmarks.leaderboard import Leaderboard
from tests.benchmarks.leaderboard_table import demo_models
from trainer.reporting.drawing import draw, plcc_bars

GREY = "#555555"
"""Lines and letters: legible on a light and on a dark page."""


def demo(board: Leaderboard) -> str:
    """An SVG of the raw PLCC of the demo's base and rounds, set by set, and weighted."""
    models = demo_models(board)
    sets = list(board.of(models["base"]))
    heights = {
        label: [*(board.values(model)[name] for name in sets), board.weighted(model)] for label, model in models.items()
    }
    plot = partial(plcc_bars, names=[*sets, "weighted"], heights=heights)
    return draw(plot, (9.0, 3.0)).replace("currentColor", GREY)
