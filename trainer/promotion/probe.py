"""The optional labelled probe: the only labels that the gate uses. Nothing is trained on it.

A round gets it as a function of `Served`; it never imports this file, nor anything else that reads labels.
"""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy.stats import ConstantInputWarning, spearmanr

from service.errors import InvalidImage
from service.prompts import Profile
from trainer.errors import UserError
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.benchmarks.load import MOST_MISSING, first, load
from trainer.pool.pool import Pool, PoolImage, content_id
from trainer.training.rollouts import Served, sample_scores, to_scores
from trainer.workers.workers import Workers


@dataclass(frozen=True, slots=True)
class Probe:
    """A labelled set, and the sampling of its scores."""

    benchmark: Benchmark
    samples: int
    seed: int

    @classmethod
    def of(cls, folder: Path, samples: int, seed: int) -> Probe:
        """Reads a benchmark, without pictures that cannot be decoded: the service would refuse them at the gate, when
        the round is already trained. Raises UserError, see `benchmarks.load`."""
        return cls(_readable(load(folder)), samples, seed)

    @property
    def notes(self) -> list[str]:
        """Notes about the set: number of images, missing ones, changes of the labels."""
        about = [f"{len(self.benchmark.ids):,} images", *self.benchmark.notes]
        return [f"probe {self.benchmark.name}: {note}" for note in about]

    def __call__(self, served: Served, workers: Workers, profile: Profile) -> float:
        """SRCC of the mean scores; 0 where they do not vary. Unreadable images are left out."""
        pool = _pool(self.benchmark)
        ids = [image.id for image in pool.images]
        answers = sample_scores(workers, pool, ids, served, samples=self.samples, seed=self.seed)
        sampled = to_scores(answers, profile)
        readable = np.isfinite(sampled).any(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConstantInputWarning)
            found = spearmanr(np.nanmean(sampled[readable], axis=1), self.benchmark.mos[readable]).statistic
        return float(np.nan_to_num(found))


def _pool(benchmark: Benchmark) -> Pool:
    ids = [content_id(path.read_bytes()) for path in benchmark.images]
    return Pool([PoolImage(id, str(path), id) for id, path in zip(ids, benchmark.images, strict=True)])


def _readable(benchmark: Benchmark) -> Benchmark:
    pool = _pool(benchmark)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        decoded = list(threads.map(partial(_decodes, pool), (image.id for image in pool.images)))
    kept = np.flatnonzero(decoded).tolist()
    broken = [id for id, fine in zip(benchmark.ids, decoded, strict=True) if not fine]
    if len(broken) > MOST_MISSING * len(benchmark.ids):
        raise UserError(
            f"{len(broken):,} images of the probe {benchmark.root} cannot be decoded ({first(broken)}); mend them, or "
            "name another probe"
        )
    return replace(
        benchmark,
        ids=[benchmark.ids[row] for row in kept],
        mos=benchmark.mos[kept],
        references=[benchmark.references[row] for row in kept] if benchmark.references else None,
        notes=[*benchmark.notes, *([f"{len(broken):,} images cannot be decoded: {first(broken)}"] if broken else [])],
    )


def _decodes(pool: Pool, image_id: str) -> bool:
    try:
        pool.open(image_id)
    except InvalidImage:
        return False
    return True
