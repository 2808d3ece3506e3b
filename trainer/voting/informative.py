"""Pairs worth asking: images that the model scores alike, so that a vote tells what the scores do not say yet.

Groups are neighbours in the order of the current scores, each sharing one image with the next: the comparison graph
is connected, and what one group learns holds for its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.pool.pool import Pool
from trainer.voting.pairs import Group, ids_of

SAMPLES = 4
"""Scores sampled an image to tell its strength."""
_JITTER = 0.5
"""Of the scores' standard deviation: neighbours, but not the same ones in every pass over the images."""


def drawn(pool: Pool, count: int, size: int, seed: int) -> list[str]:
    """The images to form groups of: no more than a chain of `count` groups can hold. Raises ValueError as `ids_of`."""
    ids = ids_of(pool, size)
    return [str(image) for image in np.random.default_rng((seed, 2)).permutation(ids)[: most_drawn(count, size)]]


def most_drawn(count: int, size: int) -> int:
    """How many images a chain of `count` groups holds."""
    return count * (size - 1) + 1


def strengths(images: Sequence[str], scores: NDArray[np.float64]) -> dict[str, float]:
    """The mean of each image's readable scores, (B, K); that of all images where an image has none."""
    known = np.isfinite(scores).any(1)
    means = np.full(len(images), np.nanmean(scores) if known.any() else 0.0)
    means[known] = np.nanmean(scores[known], 1)
    return dict(zip(images, means.tolist(), strict=True))


def chained_groups(strength: Mapping[str, float], count: int, size: int, seed: int) -> list[Group]:
    """`count` groups of `size` different images, close in strength and connected over all groups."""
    rng = np.random.default_rng((seed, 3))
    images, values = np.array(list(strength)), np.array(list(strength.values()))
    step = size - 1
    groups: list[Group] = []
    while len(groups) < count:
        links = min(count - len(groups), (len(images) - 1) // step)
        members = rng.permutation(len(images))[: links * step + 1]
        blurred = values[members] + _JITTER * values.std() * rng.standard_normal(len(members))
        chain = images[members[np.argsort(blurred)]].tolist()
        groups += [chain[link * step : link * step + size] for link in range(links)]
    return groups
