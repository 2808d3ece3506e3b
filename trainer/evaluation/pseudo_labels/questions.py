"""Which pairs of a benchmark's images are voted on: random groups, all-paired, as in a round."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from trainer.errors import UserError
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.files import read_json, write_json
from trainer.pool.pool import Pool, PoolImage, content_id
from trainer.voting.groups import Group, random_groups


@dataclass(frozen=True, slots=True)
class Questions:
    """Images by their content ids."""

    groups: list[Group]
    truth: dict[str, float]
    """The images' mean opinion scores; higher is better."""
    images: dict[str, str]
    """Their ids in the benchmark."""
    notes: list[str]
    """The benchmark's own: what a reader of the results must know."""

    def pool(self, benchmark: Benchmark) -> Pool:
        """The images, as a round's originals."""
        return Pool([PoolImage(image, str(benchmark.root / id), image) for image, id in self.images.items()])


def questions(benchmark: Benchmark, file: Path, *, groups: int, size: int, seed: int) -> Questions:
    """Those kept in `file`; they are drawn the first time. Raises ValueError where two images cannot be compared."""
    if not file.exists():
        write_json(file, asdict(_drawn(benchmark, groups, size, seed)))
    return kept(file)


def kept(file: Path) -> Questions:
    """Those that were drawn."""
    return Questions(**read_json(file))


def _drawn(benchmark: Benchmark, count: int, size: int, seed: int) -> Questions:
    """No more images than the groups have places; a set smaller than a group is one."""
    rows = np.random.default_rng((seed, 4)).permutation(len(benchmark.ids))[: count * size].tolist()
    contents = {content_id((benchmark.root / benchmark.ids[row]).read_bytes()): row for row in rows}
    if len(contents) < 2:
        raise UserError(f"{benchmark.name} has fewer than two different images: there is no pair to vote on")
    pool = Pool([PoolImage(content, "", content) for content in contents])
    return Questions(
        groups=random_groups(pool, count, min(size, len(contents)), seed),
        truth={content: float(benchmark.mos[row]) for content, row in contents.items()},
        images={content: benchmark.ids[row] for content, row in contents.items()},
        notes=list(benchmark.notes),
    )
