"""Several models on the same benchmarks: metrics with intervals, tests against the first of them, averages."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.comparison.chance import Chance
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.intervals import NAMES, of_draws
from trainer.evaluation.metrics import Array
from trainer.evaluation.resampling import Interval, interval
from trainer.evaluation.significance import PairedTest, holm
from trainer.reporting.averages import relative_gain_percent, weighted_mean

Cell = tuple[str, str]
"""Model and benchmark."""
AVERAGED = ("plcc", "plcc_fitted", "srcc", "krcc")
"""Metrics without a scale of the benchmark's own."""


@dataclass(frozen=True)
class Comparison:
    """What is known of every model on every benchmark. The first model is the baseline."""

    benchmarks: list[Benchmark]
    evaluations: dict[str, Evaluation]
    """By the models' names."""
    chance: Chance
    draws: dict[Cell, Array]
    """(metrics, resamples); none where they cannot be made, as of a single reference."""
    tests: dict[Cell, PairedTest]
    """Of SRCC, against the baseline."""
    notes: dict[str, list[str]]
    """What a reader must know of each benchmark."""

    @cached_property
    def intervals(self) -> dict[Cell, dict[str, Interval]]:
        """By metric."""
        return {cell: of_draws(drawn, self.chance.level) for cell, drawn in self.draws.items()}

    @cached_property
    def corrected(self) -> dict[Cell, float]:
        """The tests' p-values after Holm's correction for the number of all of them."""
        return holm(self.tests) if self.tests else {}

    @property
    def baseline(self) -> str:
        """The first model."""
        return next(iter(self.evaluations))

    @property
    def others(self) -> list[str]:
        """All but the baseline."""
        return list(self.evaluations)[1:]

    @property
    def resamples_of_tests(self) -> int:
        """See `Chance.resamples_of_tests`."""
        return self.chance.resamples_of_tests(len(self.others) * len(self.benchmarks))

    @property
    def best(self) -> str | None:
        """The one that gained most over the baseline; None where no gain can be told."""
        gains = {model: gain for model in self.others if (gain := self.gain_percent(model)) is not None}
        return max(gains, key=gains.__getitem__, default=None)

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

    def weighted_interval(self, model: str, metric: str) -> Interval | None:
        """Of the weighted mean, each benchmark resampled by itself; None unless all of them can be."""
        drawn = self._drawn(model, metric)
        return interval(weighted_mean(drawn, self.counts), self.chance.level) if drawn else None

    def gain_percent(self, model: str) -> float | None:
        """The weighted mean of the relative PLCC gains over the baseline, in percent; None where it correlates
        negatively with a benchmark, of which nothing is a share."""
        before = self.values(self.baseline, "plcc")
        if min(before.values()) <= 0:
            return None
        return relative_gain_percent(before, self.values(model, "plcc"), self.counts)

    def gain_interval(self, model: str) -> Interval | None:
        """Both models on the same resamples. None where there is no gain, or a benchmark cannot be resampled."""
        before, after = self._drawn(self.baseline, "plcc"), self._drawn(model, "plcc")
        if not before or not after or self.gain_percent(model) is None:
            return None
        return interval(relative_gain_percent(before, after, self.counts), self.chance.level)

    def as_dict(self) -> dict[str, Any]:
        """For `results.json`."""
        return {
            "baseline": self.baseline,
            "chance": {**asdict(self.chance), "resamples_of_tests": self.resamples_of_tests},
            "benchmarks": {
                one.name: {"images": len(one.ids), "missing": one.missing, "notes": self.notes[one.name]}
                for one in self.benchmarks
            },
            "models": {model: self._model(model) for model in self.evaluations},
        }

    def _drawn(self, model: str, metric: str) -> dict[str, Array]:
        """(resamples,) draws of a metric by benchmark, or nothing unless there are some of all."""
        if any((model, name) not in self.draws for name in self.counts):
            return {}
        return {name: self.draws[model, name][NAMES.index(metric)] for name in self.counts}

    def _model(self, model: str) -> dict[str, Any]:
        names = [name for name in self.counts if (model, name) in self.intervals]
        tested = [name for name in self.counts if (model, name) in self.tests]
        return {
            **self.evaluations[model].as_dict(),
            "weighted": {metric: self.weighted(model, metric) for metric in AVERAGED},
            "weighted_intervals": {metric: self.weighted_interval(model, metric) for metric in AVERAGED},
            "relative_gain_percent": self.gain_percent(model),
            "relative_gain_interval": self.gain_interval(model),
            "intervals": {name: self.intervals[model, name] for name in names},
            "tests": {name: self._test((model, name)) for name in tested},
        }

    def _test(self, cell: Cell) -> dict[str, Any]:
        return {"metric": "srcc", **asdict(self.tests[cell]), "p_corrected": self.corrected[cell]}
