"""Several models on the same benchmarks: metrics with intervals, tests against the first of them, averages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from trainer.evaluation.averages import relative_gain_percent, weighted_mean
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.intervals import intervals
from trainer.evaluation.resampling import Interval
from trainer.evaluation.significance import PairedTest, holm, paired_test

Cell = tuple[str, str]
"""Model and benchmark."""


@dataclass(frozen=True, slots=True)
class Chance:
    """How the bootstrap is drawn."""

    level: float = 0.95
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is known of every model on every benchmark. The first model is the baseline."""

    benchmarks: list[Benchmark]
    evaluations: dict[str, Evaluation]
    """By the models' names."""
    chance: Chance
    intervals: dict[Cell, dict[str, Interval]]
    """By metric; none where they cannot be told, as of a single reference."""
    tests: dict[Cell, PairedTest]
    """Of SRCC, against the baseline."""
    corrected: dict[Cell, float]
    """The tests' p-values after Holm's correction for the number of all of them."""
    notes: dict[str, list[str]]
    """What a reader must know of each benchmark."""

    @property
    def baseline(self) -> str:
        """The first model."""
        return next(iter(self.evaluations))

    @property
    def others(self) -> list[str]:
        """All but the baseline."""
        return list(self.evaluations)[1:]

    @property
    def counts(self) -> dict[str, int]:
        """The benchmarks' numbers of images: the weights of averages."""
        return {benchmark.name: len(benchmark.ids) for benchmark in self.benchmarks}

    def values(self, model: str, metric: str) -> dict[str, float]:
        """A metric of a model by benchmark."""
        return {name: getattr(metrics, metric) for name, metrics in self.evaluations[model].benchmarks.items()}

    def weighted(self, model: str, metric: str) -> float:
        """Mean of a metric over the benchmarks, weighted by their number of images."""
        return weighted_mean(self.values(model, metric), self.counts)

    def gain_percent(self, model: str) -> float:
        """The weighted mean of the relative PLCC gains over the baseline, in percent."""
        return relative_gain_percent(self.values(self.baseline, "plcc"), self.values(model, "plcc"), self.counts)

    def as_dict(self) -> dict[str, Any]:
        """For `results.json`."""
        return {
            "baseline": self.baseline,
            "chance": asdict(self.chance),
            "benchmarks": {
                one.name: {"images": len(one.ids), "missing": one.missing, "notes": self.notes[one.name]}
                for one in self.benchmarks
            },
            "models": {model: self._model(model) for model in self.evaluations},
        }

    def _model(self, model: str) -> dict[str, Any]:
        names = [name for name in self.counts if (model, name) in self.intervals]
        tested = [name for name in self.counts if (model, name) in self.tests]
        return {
            **self.evaluations[model].as_dict(),
            "weighted_srcc": self.weighted(model, "srcc"),
            "relative_gain_percent": self.gain_percent(model),
            "intervals": {name: self.intervals[model, name] for name in names},
            "tests": {name: self._test((model, name)) for name in tested},
        }

    def _test(self, cell: Cell) -> dict[str, Any]:
        return {"metric": "srcc", **asdict(self.tests[cell]), "p_corrected": self.corrected[cell]}


def compare(
    benchmarks: Sequence[Benchmark],
    evaluations: dict[str, Evaluation],
    chance: Chance,
    advance: Callable[[int], object] = lambda _: None,
) -> Comparison:
    """Adds what chance may have done. `advance` is told of every model's benchmark that is done."""
    baseline = next(iter(evaluations))
    found, tests, notes = {}, {}, {one.name: list(one.notes) for one in benchmarks}
    for (model, evaluation), benchmark in product(evaluations.items(), benchmarks):
        scores, cell = evaluation.scores(benchmark.name), (model, benchmark.name)
        drawn = {**asdict(chance), "references": benchmark.references}
        try:
            found[cell] = intervals(scores, benchmark.mos, **drawn)
            if model != baseline:
                first = evaluations[baseline].scores(benchmark.name)
                tests[cell] = paired_test(first, scores, benchmark.mos, **drawn)
        except ValueError as why:  # the metrics are there: there is nothing to draw from
            notes[benchmark.name].append(f"no intervals for {model}: {why}")
        advance(1)
    return Comparison(list(benchmarks), evaluations, chance, found, tests, holm(tests) if tests else {}, notes)
