"""Evaluates a served model through the public API. Answers are kept on disk, see `predictions`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evoquality import Client, contract
from trainer.errors import UserError
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.metrics import Metrics, measure
from trainer.evaluation.predictions import Prediction, Predictions, ask, check_all, scores
from trainer.files import built
from trainer.pool.unreadable import NO_ANSWER, remedy, told
from trainer.reporting.averages import weighted_mean
from trainer.settings.protocol import Protocol


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One version's predictions and metrics on every benchmark."""

    version: str
    protocol: Protocol
    settings: dict[str, Any]
    """Profile, dtype, min_pixels and max_pixels of the service."""
    benchmarks: dict[str, Metrics]
    predictions: dict[str, list[Prediction]]
    """Benchmark -> (N,) predictions in the order of its ids."""

    @property
    def weighted_plcc(self) -> float:
        """Mean raw PLCC of the benchmarks, weighted by their number of images, unreadable ones included."""
        counts = {name: len(row) for name, row in self.predictions.items()}
        return weighted_mean({name: metrics.plcc for name, metrics in self.benchmarks.items()}, counts)

    @property
    def unreadable(self) -> float:
        """Share of answers without a readable score, over the images that the service accepted."""
        shares = [one.unreadable for row in self.predictions.values() for one in row if one.refused is None]
        return float(np.mean(shares)) if shares else 0.0

    @property
    def refused(self) -> dict[str, dict[str, str]]:
        """Benchmark -> image -> reason why the service refused it."""
        found = {
            name: {one.id: one.refused for one in row if one.refused is not None}
            for name, row in self.predictions.items()
        }
        return {name: images for name, images in found.items() if images}

    def scores(self, benchmark: str) -> NDArray[np.float64]:
        """(N,) predicted scores; NaN where no answer was readable."""
        return scores(self.predictions[benchmark])

    def as_dict(self) -> dict[str, Any]:
        """JSON form for reports."""
        return {
            "version": self.version,
            "protocol": self.protocol.as_dict(),
            "settings": self.settings,
            "benchmarks": {name: asdict(metrics) for name, metrics in self.benchmarks.items()},
            "weighted_plcc": self.weighted_plcc,
            "unreadable": self.unreadable,
            "refused": self.refused,
        }


def evaluate(
    url: str,
    benchmarks: Sequence[Benchmark],
    protocol: Protocol,
    folder: Path,
    *,
    advance: Callable[[int], object] = lambda _: None,
) -> Evaluation:
    """Scores every image without a prediction in `folder` (one file per benchmark), and computes the metrics.

    Calls `advance` for images as they are done.

    Raises:
        ServiceError: the service refused a request for another reason than its image.
        UserError: see `ask` and `measured`.
    """
    for benchmark in benchmarks:
        ask(url, benchmark, protocol, Predictions(folder, benchmark.name), advance=advance)
    return measured(benchmarks, protocol, folder)


def measured(benchmarks: Sequence[Benchmark], protocol: Protocol, folder: Path) -> Evaluation:
    """Metrics of complete predictions; sends no request.

    Raises:
        UserError: predictions are missing or constant, or differ in version, protocol or settings.
    """
    kept = [Predictions(folder, benchmark.name) for benchmark in benchmarks]
    check_all(kept, protocol)
    for benchmark, predictions in zip(benchmarks, kept, strict=True):
        if missing := predictions.missing(benchmark.ids):
            raise UserError(f"{predictions.file} lacks {len(missing)} of the benchmark's {len(benchmark.ids)} images")
    found = {
        benchmark.name: predictions.of(benchmark.ids) for benchmark, predictions in zip(benchmarks, kept, strict=True)
    }
    metrics = {benchmark.name: _measure(benchmark, found[benchmark.name]) for benchmark in benchmarks}
    first = next(one for row in found.values() for one in row)
    return Evaluation(first.version, built(Protocol, first.protocol), first.settings, metrics, found)


def _measure(benchmark: Benchmark, predictions: Sequence[Prediction]) -> Metrics:
    try:
        return measure(scores(predictions), benchmark.mos)
    except UserError as error:
        reasons = Counter(one.refused or NO_ANSWER for one in predictions if one.score is None)
        none = f"{reasons.total():,} of {len(predictions):,} images have no score"
        why = f". {none}: {told(reasons)}; {remedy(reasons)}" if reasons else ""
        raise UserError(f"{benchmark.name}, version {predictions[0].version}: {error}{why}") from None


def record(evaluation: Evaluation, operator: Client) -> None:
    """Records the results with the version in the service. Raises ServiceError."""
    results = {
        name: contract.Benchmark(n=metrics.n, plcc=metrics.plcc, srcc=metrics.srcc)
        for name, metrics in evaluation.benchmarks.items()
    }
    operator.record_benchmarks(evaluation.version, results)
