"""The pictures of which a model is most wrong."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.logistic import fit_logistic
from trainer.reporting.page import thumbnail

SHOWN = 6


class Miss(NamedTuple):
    """A picture, what the model said and what people did."""

    id: str
    picture: str | None
    """A data: URL; None if the file can no longer be read."""
    score: float
    fitted: float
    """The score on the scale of the mean opinion scores."""
    mos: float


def worst(benchmark: Benchmark, evaluation: Evaluation) -> list[Miss]:
    """Those whose fitted score is farthest from the mean opinion score, the farthest first."""
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
