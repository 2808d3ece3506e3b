"""Compares models on the same benchmarks: metrics with intervals, tests against the first model, averages."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

from joblib import Parallel, cpu_count, delayed

from trainer.errors import UserError
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.bootstrap import NAMES, Interval, PairedTest, draws, holm, interval, of_draws, paired_test
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.metrics import Array
from trainer.reporting.averages import relative_gain_percent, weighted_mean

Cell = tuple[str, str]
"""Model and benchmark name."""
AVERAGED = ("plcc", "plcc_fitted", "srcc", "krcc")
"""Metrics that do not depend on a benchmark's scale."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Parameters of the bootstrap."""

    level: float = 0.95
    resamples: int = 1000
    seed: int = 0

    def seed_of(self, benchmark: str) -> int:
        """Seed of a benchmark, independent of which others are evaluated."""
        return (self.seed + zlib.crc32(benchmark.encode())) % 2**32

    def resamples_of_tests(self, tests: int) -> int:
        """Number of resamples for which the smallest possible p, 2 / (resamples + 1), is a quarter of 1 - level after
        Holm's correction for the number of tests."""
        return max(self.resamples, math.ceil(8 * tests / (1 - self.level)))


class Question(NamedTuple):
    """One model on one benchmark."""

    benchmark: Benchmark
    scores: Array
    """(N,) scores of the model."""
    baseline: Array | None
    """(N,) scores of the model to test against."""


class Drawn(NamedTuple):
    """Bootstrap results of one model on one benchmark."""

    metrics: Array | None
    """(metrics, resamples), see `bootstrap.draws`."""
    test: PairedTest | None
    """Test of SRCC against the baseline."""
    why: str | None
    """Reason if one of them is missing."""


def draw_all(questions: Iterable[Question], bootstrap: Bootstrap) -> Iterator[Drawn]:
    """Results in the order of the questions, computed on all processors available to this process."""
    asked = list(questions)
    resamples = bootstrap.resamples_of_tests(sum(one.baseline is not None for one in asked))
    processes = Parallel(n_jobs=min(cpu_count(), len(asked)), return_as="generator")
    yield from processes(delayed(draw)(one, bootstrap, resamples) for one in asked)


def draw(question: Question, bootstrap: Bootstrap, resamples_of_tests: int) -> Drawn:
    """Intervals and test of one cell. Where they are undefined, as for a single reference, returns the reason."""
    one, metrics, test = question.benchmark, None, None
    seed = bootstrap.seed_of(one.name)
    try:
        metrics = draws(question.scores, one.mos, references=one.references, resamples=bootstrap.resamples, seed=seed)
        if question.baseline is not None:
            test = paired_test(
                question.baseline,
                question.scores,
                one.mos,
                references=one.references,
                resamples=resamples_of_tests,
                level=bootstrap.level,
                seed=seed,
            )
    except UserError as why:
        return Drawn(metrics, test, str(why))
    return Drawn(metrics, test, None)


@dataclass(frozen=True)
class Comparison:
    """Results of every model on every benchmark. The first model is the baseline."""

    benchmarks: list[Benchmark]
    evaluations: dict[str, Evaluation]
    """By model name."""
    bootstrap: Bootstrap
    draws: dict[Cell, Array]
    """(metrics, resamples); missing where undefined, as for a single reference."""
    tests: dict[Cell, PairedTest]
    """Test of SRCC against the baseline."""
    notes: dict[str, list[str]]
    """Remarks on each benchmark."""

    @cached_property
    def intervals(self) -> dict[Cell, dict[str, Interval]]:
        """Cell -> metric -> interval."""
        return {cell: of_draws(drawn, self.bootstrap.level) for cell, drawn in self.draws.items()}

    @cached_property
    def corrected(self) -> dict[Cell, float]:
        """The tests' p-values with Holm's correction over all tests."""
        return holm(self.tests) if self.tests else {}

    @property
    def baseline(self) -> str:
        """The first model."""
        return next(iter(self.evaluations))

    @property
    def others(self) -> list[str]:
        """All models but the baseline."""
        return list(self.evaluations)[1:]

    @property
    def resamples_of_tests(self) -> int:
        """See `Bootstrap.resamples_of_tests`."""
        return self.bootstrap.resamples_of_tests(len(self.others) * len(self.benchmarks))

    @property
    def best(self) -> str | None:
        """The model with the largest gain over the baseline; None if no gain is defined."""
        gains = {model: gain for model in self.others if (gain := self.gain_percent(model)) is not None}
        return max(gains, key=gains.__getitem__, default=None)

    @property
    def counts(self) -> dict[str, int]:
        """Benchmark -> number of images, the weight in averages."""
        return {benchmark.name: len(benchmark.ids) for benchmark in self.benchmarks}

    def values(self, model: str, metric: str) -> dict[str, float]:
        """Benchmark -> metric of a model."""
        return {name: getattr(metrics, metric) for name, metrics in self.evaluations[model].benchmarks.items()}

    def weighted(self, model: str, metric: str) -> float:
        """Mean of a metric over the benchmarks, weighted by number of images."""
        return weighted_mean(self.values(model, metric), self.counts)

    def weighted_interval(self, model: str, metric: str) -> Interval | None:
        """Interval of the weighted mean, with benchmarks resampled independently; None unless all have draws."""
        drawn = self._drawn(model, metric)
        return interval(weighted_mean(drawn, self.counts), self.bootstrap.level) if drawn else None

    def gain_percent(self, model: str) -> float | None:
        """Weighted mean of the relative PLCC gains over the baseline, in percent.

        None if the baseline's PLCC on a benchmark is not positive, where a relative gain is undefined.
        """
        before = self.values(self.baseline, "plcc")
        if min(before.values()) <= 0:
            return None
        return relative_gain_percent(before, self.values(model, "plcc"), self.counts)

    def gain_interval(self, model: str) -> Interval | None:
        """Interval of the gain, both models on the same resamples. None if no gain is defined or draws are missing."""
        before, after = self._drawn(self.baseline, "plcc"), self._drawn(model, "plcc")
        if not before or not after or self.gain_percent(model) is None:
            return None
        return interval(relative_gain_percent(before, after, self.counts), self.bootstrap.level)

    def as_dict(self) -> dict[str, Any]:
        """Contents of `results.json`."""
        return {
            "baseline": self.baseline,
            "chance": {**asdict(self.bootstrap), "resamples_of_tests": self.resamples_of_tests},
            "benchmarks": {
                one.name: {"images": len(one.ids), "missing": one.missing, "notes": self.notes[one.name]}
                for one in self.benchmarks
            },
            "models": {model: self._model(model) for model in self.evaluations},
        }

    def _drawn(self, model: str, metric: str) -> dict[str, Array]:
        """Benchmark -> (resamples,) draws of a metric; empty unless all benchmarks have draws."""
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


def compare(
    benchmarks: Sequence[Benchmark],
    evaluations: dict[str, Evaluation],
    bootstrap: Bootstrap,
    advance: Callable[[int], object] = lambda _: None,
) -> Comparison:
    """Computes intervals and tests of the evaluations. Calls `advance` for each model and benchmark done."""
    baseline = next(iter(evaluations))
    cells = list(product(evaluations, benchmarks))
    questions = [
        Question(one, evaluations[model].scores(one.name), _rival(model, baseline, evaluations, one))
        for model, one in cells
    ]
    drawn, tests, notes = {}, {}, {one.name: list(one.notes) for one in benchmarks}
    for (model, one), found in zip(cells, draw_all(questions, bootstrap), strict=True):
        if found.metrics is not None:
            drawn[model, one.name] = found.metrics
        if found.test is not None:
            tests[model, one.name] = found.test
        if found.why:  # the metrics exist, only the draws do not
            notes[one.name].append(f"no intervals or test for {model}: {found.why}")
        advance(1)
    return Comparison(list(benchmarks), evaluations, bootstrap, drawn, tests, notes)


def _rival(model: str, baseline: str, evaluations: dict[str, Evaluation], one: Benchmark) -> Array | None:
    return None if model == baseline else evaluations[baseline].scores(one.name)
