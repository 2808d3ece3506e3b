"""The labelled probe, for those who have one: what the gate alone may know of the truth. Nothing is trained on it.

A round is handed a function of `Served`; it never imports this file, nor anything else that opens labels.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import ConstantInputWarning, spearmanr

from service.prompts import Profile
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.benchmarks.load import load
from trainer.pool.image import PoolImage, content_id
from trainer.pool.pool import Pool
from trainer.training import scores
from trainer.training.served import Served
from trainer.workers.workers import Workers


@dataclass(frozen=True, slots=True)
class Probe:
    """A labelled set and how to ask about it."""

    benchmark: Benchmark
    samples: int
    seed: int

    @classmethod
    def of(cls, folder: Path, samples: int, seed: int) -> Probe:
        """Reads a benchmark. Raises ValueError, see `benchmarks.load`."""
        return cls(load(folder), samples, seed)

    @property
    def notes(self) -> list[str]:
        """What to know of it: how many images, which are missing, what was done to the labels."""
        about = [f"{len(self.benchmark.ids):,} images", *self.benchmark.notes]
        return [f"probe {self.benchmark.name}: {note}" for note in about]

    def __call__(self, served: Served, workers: Workers, profile: Profile) -> float:
        """SRCC of the mean scores; 0 where they do not vary. Unreadable images are left out."""
        ids = [content_id(path.read_bytes()) for path in self.benchmark.images]
        pool = Pool([PoolImage(i, str(path), i) for i, path in zip(ids, self.benchmark.images, strict=True)])
        answers = scores.sample(workers, pool, ids, served, samples=self.samples, seed=self.seed)
        sampled = scores.to_scores(answers, profile)
        readable = np.isfinite(sampled).any(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConstantInputWarning)
            found = spearmanr(np.nanmean(sampled[readable], axis=1), self.benchmark.mos[readable]).statistic
        return float(np.nan_to_num(found))
