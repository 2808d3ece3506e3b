"""Evaluates what a service serves, through the public API that everybody uses. Answers are kept: see `predictions`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service import contract
from service.client import Client
from trainer.errors import UserError
from trainer.evaluation.asking import ask
from trainer.evaluation.averages import weighted_mean
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.metrics import Metrics, measure
from trainer.evaluation.predictions import Prediction, Predictions, check_all, scores
from trainer.evaluation.protocol import Protocol


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One version's predictions and metrics on every benchmark."""

    version: str
    protocol: Protocol
    settings: dict[str, Any]
    """Of the service that answered: profile, dtype, min_pixels, max_pixels."""
    benchmarks: dict[str, Metrics]
    predictions: dict[str, list[Prediction]]
    """Of each benchmark, (N,) in the order of its ids."""

    @property
    def weighted_plcc(self) -> float:
        """Raw PLCC over all benchmarks, weighted by their number of images, unreadable ones among them."""
        counts = {name: len(row) for name, row in self.predictions.items()}
        return weighted_mean({name: metrics.plcc for name, metrics in self.benchmarks.items()}, counts)

    @property
    def unreadable(self) -> float:
        """Share of the answers that held no score, of the pictures that the service took."""
        shares = [one.unreadable for row in self.predictions.values() for one in row if one.refused is None]
        return float(np.mean(shares)) if shares else 0.0

    @property
    def refused(self) -> dict[str, dict[str, str]]:
        """Benchmark -> image -> why the service did not take it."""
        found = {
            name: {one.id: one.refused for one in row if one.refused is not None}
            for name, row in self.predictions.items()
        }
        return {name: images for name, images in found.items() if images}

    def scores(self, benchmark: str) -> NDArray[np.float64]:
        """(N,) predicted scores, NaN where no answer was readable."""
        return scores(self.predictions[benchmark])

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
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
    """Scores every image that `folder`, one file a benchmark, has no prediction of, and measures them all.

    `advance` is told of images as they are done.

    Raises:
        ServiceError: the service refused more than a picture.
        ValueError: see `ask` and `measured`.
    """
    for benchmark in benchmarks:
        ask(url, benchmark, protocol, Predictions(folder, benchmark.name), advance=advance)
    return measured(benchmarks, protocol, folder)


def measured(benchmarks: Sequence[Benchmark], protocol: Protocol, folder: Path) -> Evaluation:
    """The metrics of predictions that are all there; nobody is asked.

    Raises:
        ValueError: predictions are missing, were made by several versions or in another way, or do not vary.
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
    return Evaluation(first.version, Protocol(**first.protocol), first.settings, metrics, found)


def _measure(benchmark: Benchmark, predictions: Sequence[Prediction]) -> Metrics:
    try:
        return measure(scores(predictions), benchmark.mos)
    except UserError as error:
        unreadable = np.mean([one.score is None for one in predictions])
        raise UserError(
            f"{benchmark.name}, judged by version {predictions[0].version}: {error}. {unreadable:.0%} of the images "
            "have no score; a model that answers in another way than it is read needs its own --profile"
        ) from None


def record(evaluation: Evaluation, operator: Client) -> None:
    """Has the service show the results beside the version they were measured of. Raises ServiceError."""
    results = {
        name: contract.Benchmark(n=metrics.n, plcc=metrics.plcc, srcc=metrics.srcc)
        for name, metrics in evaluation.benchmarks.items()
    }
    operator.record_benchmarks(evaluation.version, results)
