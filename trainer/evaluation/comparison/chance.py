"""What chance may have done to one model's metrics on one benchmark."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from joblib import Parallel, cpu_count, delayed

from trainer.errors import UserError
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.intervals import draws
from trainer.evaluation.metrics import Array
from trainer.evaluation.significance import PairedTest, paired_test


@dataclass(frozen=True, slots=True)
class Chance:
    """How the bootstrap is drawn."""

    level: float = 0.95
    resamples: int = 1000
    seed: int = 0

    def seed_of(self, benchmark: str) -> int:
        """Benchmarks are drawn independently, and none otherwise because another one is there."""
        return (self.seed + zlib.crc32(benchmark.encode())) % 2**32

    def resamples_of_tests(self, tests: int) -> int:
        """So many that the smallest p there is, 2 / (resamples + 1), is well below 1 - level after Holm's correction
        for the number of tests: a fourth of it."""
        return max(self.resamples, math.ceil(8 * tests / (1 - self.level)))


class Question(NamedTuple):
    """One model on one benchmark."""

    benchmark: Benchmark
    scores: Array
    """(N,) of the model."""
    baseline: Array | None
    """(N,) of the model to test against."""


class Drawn(NamedTuple):
    """What was found."""

    metrics: Array | None
    """(metrics, resamples), see `intervals.draws`."""
    test: PairedTest | None
    """Of SRCC, against the baseline."""
    why: str | None
    """Why one of them is missing."""


def draw_all(questions: Iterable[Question], chance: Chance) -> Iterator[Drawn]:
    """Answers in the order of the questions, as they come; on all processors that this process may use."""
    asked = list(questions)
    resamples = chance.resamples_of_tests(sum(one.baseline is not None for one in asked))
    processes = Parallel(n_jobs=min(cpu_count(), len(asked)), return_as="generator")
    yield from processes(delayed(draw)(one, chance, resamples) for one in asked)


def draw(question: Question, chance: Chance, resamples_of_tests: int) -> Drawn:
    """Nothing is raised where there is nothing to draw from, as of a single reference: the metrics are there anyway."""
    one, metrics, test = question.benchmark, None, None
    seed = chance.seed_of(one.name)
    try:
        metrics = draws(question.scores, one.mos, references=one.references, resamples=chance.resamples, seed=seed)
        if question.baseline is not None:
            test = paired_test(
                question.baseline, question.scores, one.mos, references=one.references, resamples=resamples_of_tests,
                level=chance.level, seed=seed,
            )  # fmt: skip
    except UserError as why:
        return Drawn(metrics, test, str(why))
    return Drawn(metrics, test, None)
