"""Makes a comparison of several models' evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.comparison.chance import Chance, Question, draw_all
from trainer.evaluation.comparison.comparison import Comparison
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.metrics import Array


def compare(
    benchmarks: Sequence[Benchmark],
    evaluations: dict[str, Evaluation],
    chance: Chance,
    advance: Callable[[int], object] = lambda _: None,
) -> Comparison:
    """Adds what chance may have done. `advance` is told of every model's benchmark that is done."""
    baseline = next(iter(evaluations))
    cells = list(product(evaluations, benchmarks))
    questions = [
        Question(one, evaluations[model].scores(one.name), _rival(model, baseline, evaluations, one))
        for model, one in cells
    ]
    drawn, tests, notes = {}, {}, {one.name: list(one.notes) for one in benchmarks}
    for (model, one), found in zip(cells, draw_all(questions, chance), strict=True):
        if found.metrics is not None:
            drawn[model, one.name] = found.metrics
        if found.test is not None:
            tests[model, one.name] = found.test
        if found.why:  # the metrics are there: there is nothing to draw from
            notes[one.name].append(f"no intervals or test for {model}: {found.why}")
        advance(1)
    return Comparison(list(benchmarks), evaluations, chance, drawn, tests, notes)


def _rival(model: str, baseline: str, evaluations: dict[str, Evaluation], one: Benchmark) -> Array | None:
    return None if model == baseline else evaluations[baseline].scores(one.name)
