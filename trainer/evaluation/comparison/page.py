"""The page of a comparison: one file that asks nothing of any other host."""

from __future__ import annotations

from trainer.evaluation.comparison import plots
from trainer.evaluation.comparison.comparison import Comparison
from trainer.evaluation.comparison.misses import worst
from trainer.evaluation.comparison.tables import TITLES
from trainer.evaluation.intervals import kind
from trainer.reporting.page import filled


def render(comparison: Comparison) -> str:
    """Figures, plots and the worst misses of every model on every benchmark."""
    models = list(comparison.evaluations.items())
    return filled(
        "comparison.html.jinja",
        comparison=comparison,
        titles=TITLES,
        level=f"{comparison.chance.level:.0%}",
        bars=plots.bars(comparison),
        radar=plots.radar(comparison),
        scatters={
            one.name: {model: plots.scatter(one, found, place) for place, (model, found) in enumerate(models)}
            for one in comparison.benchmarks
        },
        misses={one.name: {model: worst(one, found) for model, found in models} for one in comparison.benchmarks},
        kinds={
            one.name: kind(one.references, resamples=comparison.chance.resamples, level=comparison.chance.level)
            for one in comparison.benchmarks
        },
    )
