"""Chooses the pairs to compare next within a budget of comparisons.

A round is a matching: no image is in two pairs, so all pairs of a round are asked at once. The first two rounds are the
halves of a path through all images, which connects every image to every other. Later rounds take the pairs with the
highest expected information: the variance p (1 - p) of a vote, times the variance of the difference of the two
strengths (Glickman and Jensen, 2005).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from service.ranking.strengths import Floats, Strengths

Pair = tuple[int, int]


def default_comparisons(images: int) -> int:
    """n log2(n), at most all pairs."""
    return min(math.ceil(images * math.log2(images)), math.comb(images, 2))


class Tournament:
    """Chooses each pair at most once, until the budget of comparisons is spent."""

    def __init__(self, images: int, comparisons: int) -> None:
        self._images = images
        self._left = min(comparisons, math.comb(images, 2))
        self._open = np.triu(np.ones((images, images), dtype=bool), k=1)
        self._path = [[(i, i + 1) for i in range(start, images - 1, 2)] for start in (0, 1)]

    def opening(self) -> Iterator[list[Pair]]:
        """The rounds that connect all images: n - 1 comparisons."""
        for pairs in self._path:
            if chosen := self._take(pairs):
                yield chosen

    def next_round(self, known: Strengths) -> list[Pair]:
        """The pairs to compare next, given the strengths so far; none once the budget is spent."""
        worth = expected_information(known)
        order = np.argsort(-worth, axis=None, kind="stable")
        candidates = (divmod(int(place), self._images) for place in order)
        return self._take(list(_matched((i, j) for i, j in candidates if self._open[i, j])))

    def _take(self, pairs: Sequence[Pair]) -> list[Pair]:
        taken = list(islice(pairs, self._left))
        self._left -= len(taken)
        for pair in taken:
            self._open[pair] = False
        return taken


def expected_information(known: Strengths) -> Floats:
    """The (n, n) expected information of each pair's comparison, up to a common factor."""
    variance = np.diag(known.covariance)
    difference = variance[:, None] + variance[None, :] - 2 * known.covariance
    likely = np.exp(-np.abs(known.values[:, None] - known.values[None, :]))
    return difference * likely / (1 + likely) ** 2


def _matched(pairs: Iterator[Pair]) -> Iterator[Pair]:
    """The pairs, best first, without those that repeat an image."""
    used: set[int] = set()
    for pair in pairs:
        if used.isdisjoint(pair):
            used.update(pair)
            yield pair
