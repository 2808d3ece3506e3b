"""The pairs that are asked: groups of images, all-paired, so that a training step's images are each other's partners.

Informative groups hold images that the model scores alike, where a vote says what the scores do not say yet. They are
neighbours in the order of the current scores, and each shares one image with the next: the comparison graph is
connected, and what one group learns holds for its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from trainer.errors import UserError
from trainer.pool.pool import Pool

Group = list[str]
"""Content ids of images that are compared with each other."""
STRENGTH_SAMPLES = 4
"""Scores sampled an image to estimate its strength."""
_REFERENCES = 4
"""Of a group of distortions."""
_JITTER = 0.5
"""Share of the scores' standard deviation: neighbours, but not the same ones in every pass over the images."""


def random_groups(pool: Pool, count: int, size: int, seed: int) -> list[Group]:
    """`count` groups of `size` different images; every image occurs about equally often.

    Raises:
        UserError: the pool has fewer images than a group.
    """
    ids = _ids_of(pool, size)
    rng = np.random.default_rng(seed)
    groups: list[Group] = []
    deck: list[str] = []
    while len(groups) < count:
        if len(deck) < size:
            deck += [str(image) for image in rng.permutation([image for image in ids if image not in deck])]
        group, deck = deck[:size], deck[size:]
        groups.append(group)
    return groups


def same_reference_groups(pool: Pool, count: int, size: int, seed: int) -> list[Group]:
    """Round 2's own pairs: every group holds several distortions of each of a few references.

    A few, not one: a step whose images all have one content does not compare contents, and the scores of different
    contents drift apart. References take turns; a group has fewer than `size` images where its references have no
    more.

    Raises:
        UserError: no image has a variant.
    """
    by_source: dict[str, list[str]] = {}
    for image in pool.images:
        by_source.setdefault(image.source, []).append(image.id)
    rng = np.random.default_rng(seed)
    families = [members for members in by_source.values() if len(members) > 1]
    if count and not families:
        raise UserError("no image of the pool has a distorted variant to be compared with; give --variants above 0")
    references = min(_REFERENCES, len(families), size)
    rounds = range(0, count * references, max(1, len(families)))
    turns = [place for _ in rounds for place in rng.permutation(len(families))]
    groups = []
    for start in range(0, len(turns) - references + 1, max(1, references))[:count]:
        members = [rng.permutation(families[place]) for place in turns[start : start + references]]
        parts = [family[: -(-size // references)] for family in members]
        groups.append(list(dict.fromkeys(str(image) for part in parts for image in part))[:size])
    return groups


def chain_images(pool: Pool, count: int, size: int, seed: int) -> list[str]:
    """The images for a chain of `count` groups, no more than it can hold.

    Raises:
        UserError: the pool has fewer images than a group.
    """
    ids = _ids_of(pool, size)
    return [str(image) for image in np.random.default_rng((seed, 2)).permutation(ids)[: chain_length(count, size)]]


def chain_length(count: int, size: int) -> int:
    """The number of images in a chain of `count` groups."""
    return count * (size - 1) + 1


def strengths(images: Sequence[str], scores: NDArray[np.float64]) -> dict[str, float]:
    """The mean of each image's readable scores, (B, K); the mean of all images for an image without one."""
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


def pairs_of(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """Every pair inside a group, once, in a stable order."""
    found = {tuple(sorted(pair)): None for group in groups for pair in combinations(group, 2)}
    return [(first, second) for first, second in found]


def shuffled(groups: list[Group], seed: int) -> list[Group]:
    """The groups in a random order."""
    return [groups[place] for place in np.random.default_rng((seed, 1)).permutation(len(groups))]


def _ids_of(pool: Pool, size: int) -> list[str]:
    ids = [image.id for image in pool.images]
    if len(ids) < size:
        raise UserError(f"the pool has {len(ids)} images, fewer than a group of {size}; add images or variants")
    return ids
