"""Which pairs are asked. Groups of images, all-paired, so that a training step's images are each other's partners."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from trainer.pool.pool import Pool

Group = list[str]
"""Content ids of images that are compared with each other."""


def random_groups(pool: Pool, count: int, size: int, seed: int) -> list[Group]:
    """`count` groups of `size` different images; every image occurs about equally often.

    Raises:
        ValueError: the pool has fewer images than a group.
    """
    ids = [image.id for image in pool.images]
    if len(ids) < size:
        raise ValueError(f"the pool has {len(ids)} images, fewer than a group of {size}; add images or variants")
    rng = np.random.default_rng(seed)
    groups: list[Group] = []
    deck: list[str] = []
    while len(groups) < count:
        if len(deck) < size:
            deck += [str(image) for image in rng.permutation([image for image in ids if image not in deck])]
        group, deck = deck[:size], deck[size:]
        groups.append(group)
    return groups


def same_reference_groups(pool: Pool, count: int, size: int, seed: int, references: int = 3) -> list[Group]:
    """Round 2's own pairs: groups drawn from a few references only, so that many pairs share their content."""
    rng = np.random.default_rng(seed)
    by_source: dict[str, list[str]] = {}
    for image in pool.images:
        by_source.setdefault(image.source, []).append(image.id)
    groups: list[Group] = []
    for _ in range(count):
        sources = rng.choice(list(by_source), min(references, len(by_source)), replace=False)
        members = [image for source in sources for image in by_source[str(source)]]
        groups.append([str(image) for image in rng.choice(members, min(size, len(members)), replace=False)])
    return groups


def pairs_of(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Every pair inside a group, once, in a stable order."""
    found = {tuple(sorted(pair)): None for group in groups for pair in combinations(group, 2)}
    return [(first, second) for first, second in found]


def shuffled(groups: list[Group], seed: int) -> list[Group]:
    """The groups in a random order that the seed decides."""
    return [groups[place] for place in np.random.default_rng((seed, 1)).permutation(len(groups))]
