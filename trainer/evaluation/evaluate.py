"""Evaluates the version that the service serves now, through the public API that everybody uses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from service import contract
from service.client import AsyncClient, Client
from service.contract import ScoreOptions
from trainer.evaluation.averages import weighted_mean
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.metrics import Metrics, measure


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One version's metrics on every benchmark."""

    version: str
    benchmarks: dict[str, Metrics]
    unreadable: int
    """Answers without a score, over all benchmarks."""

    @property
    def weighted_plcc(self) -> float:
        """Raw PLCC over all benchmarks, weighted by their number of images."""
        counts = {name: metrics.n for name, metrics in self.benchmarks.items()}
        return weighted_mean({name: metrics.plcc for name, metrics in self.benchmarks.items()}, counts)

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        return {
            "version": self.version,
            "benchmarks": {name: asdict(metrics) for name, metrics in self.benchmarks.items()},
            "weighted_plcc": self.weighted_plcc,
            "unreadable": self.unreadable,
        }


def evaluate(
    url: str, benchmarks: Sequence[Benchmark], *, samples: int, seed: int, advance: Callable[[int], None]
) -> Evaluation:
    """Scores every image with the mean of `samples` answers.

    Raises:
        ServiceError: the service refused an image.
        ValueError: the version changed while it was being evaluated, or its predictions do not vary.
    """
    return asyncio.run(_evaluate(url, benchmarks, samples, seed, advance))


def record(evaluation: Evaluation, operator: Client) -> None:
    """Has the service show the results beside the version they were measured of. Raises ServiceError."""
    results = {
        name: contract.Benchmark(n=metrics.n, plcc=metrics.plcc, srcc=metrics.srcc)
        for name, metrics in evaluation.benchmarks.items()
    }
    operator.record_benchmarks(evaluation.version, results)


async def _evaluate(
    url: str, benchmarks: Sequence[Benchmark], samples: int, seed: int, advance: Callable[[int], None]
) -> Evaluation:
    limit, versions, unreadable = asyncio.Semaphore(16), set(), 0

    async with AsyncClient(url) as client:

        async def predict(number: int, image: Path) -> float:
            nonlocal unreadable
            options = ScoreOptions(mode="sampled", samples=samples, seed=(seed + number) % 2**31)
            async with limit:
                answer = await client.score(image, options)
            versions.add(answer.version)
            unreadable += round(answer.unreadable * samples)
            advance(1)
            return np.nan if answer.score is None else answer.score

        results = {}
        for benchmark in benchmarks:
            scores = await asyncio.gather(*(predict(n, image) for n, image in enumerate(benchmark.images)))
            results[benchmark.name] = measure(np.array(scores), benchmark.mos)
    if len(versions) != 1:
        raise ValueError(f"the service changed its version during the evaluation ({', '.join(sorted(versions))})")
    return Evaluation(versions.pop(), results, unreadable)
