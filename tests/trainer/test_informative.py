"""Groups of images that are scored alike, connected over all groups."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from trainer.pool.pool import Pool, PoolImage
from trainer.voting.groups import Group, chain_images, chained_groups, random_groups, strengths

IDS = [f"{number:03d}" for number in range(100)]
POOL = Pool([PoolImage(name, "", name) for name in IDS])
STRENGTH = {name: float(score) for name, score in zip(IDS, np.random.default_rng(0).normal(3, 1, 100), strict=True)}


def components(groups: list[Group]) -> int:
    """Parts of the comparison graph that no comparison connects."""
    images = sorted({image for group in groups for image in group})
    edges = [(images.index(a), images.index(b)) for group in groups for a, b in combinations(group, 2)]
    rows, columns = zip(*edges, strict=True)
    graph = coo_matrix((np.ones(len(edges)), (rows, columns)), shape=(len(images), len(images)))
    return int(connected_components(graph, directed=False)[0])


def distance(groups: list[Group]) -> float:
    """Between the strengths of two images that are compared, on average."""
    return float(np.mean([abs(STRENGTH[a] - STRENGTH[b]) for group in groups for a, b in combinations(group, 2)]))


@pytest.mark.parametrize("count", [1, 3, 9, 10, 25])
def test_groups_hold_different_images_and_form_one_graph(count: int) -> None:
    groups = chained_groups({name: STRENGTH[name] for name in chain_images(POOL, count, 12, seed=0)}, count, 12, seed=0)
    assert [len(set(group)) for group in groups] == [12] * count
    assert components(groups) == 1


def test_images_compared_are_closer_in_strength_than_at_random() -> None:
    assert distance(chained_groups(STRENGTH, 20, 12, seed=0)) < 0.6 * distance(random_groups(POOL, 20, 12, seed=0))


def test_the_seed_decides_the_groups() -> None:
    first, again, other = (chained_groups(STRENGTH, 5, 12, seed) for seed in (1, 1, 2))
    assert first == again != other


def test_no_more_images_are_drawn_than_a_chain_holds() -> None:
    assert len(set(chain_images(POOL, 3, 12, seed=0))) == 34
    assert len(chain_images(POOL, 50, 12, seed=0)) == 100


def test_an_image_without_a_readable_score_is_taken_for_an_average_one() -> None:
    scores = np.array([[1.0, np.nan], [np.nan, np.nan], [4.0, 4.0]])
    assert strengths(["a", "b", "c"], scores) == {"a": 1.0, "b": 3.0, "c": 4.0}
    assert strengths(["a"], np.array([[np.nan]])) == {"a": 0.0}
