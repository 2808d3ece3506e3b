"""A world that follows the Bradley-Terry model, and tournaments played in it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from service.ranking.strengths import Floats, Kind, Preference, Strengths, fit
from service.ranking.tournament import Pair, Tournament, default_comparisons


class Truth:
    """Images of known strengths; the one shown first is preferred a little more often."""

    def __init__(self, images: int, seed: int, spread: float = 1.5, position: float = 0.3) -> None:
        self.noise = np.random.default_rng(seed)
        drawn = self.noise.normal(0, spread, images)
        self.strengths: Floats = drawn - drawn.mean()
        self.position = position

    def compare(self, pair: Pair, votes: int | None) -> list[Preference]:
        """Both orders: shares of votes, or (None) the exact probabilities."""
        return [self._ask(first, second, votes) for first, second in (pair, pair[::-1])]

    def all_pairs(self) -> list[Pair]:
        return list(combinations(range(len(self.strengths)), 2))

    def full(self, votes: int | None) -> Strengths:
        """The result of comparing every pair."""
        return self.fit([row for pair in self.all_pairs() for row in self.compare(pair, votes)], votes)

    def fit(self, rows: Sequence[Preference], votes: int | None) -> Strengths:
        kind: Kind = "votes" if votes else "probabilities"
        return fit(len(self.strengths), rows, kind)

    def _ask(self, first: int, second: int, votes: int | None) -> Preference:
        logit = self.strengths[first] - self.strengths[second] + self.position
        probability = 1 / (1 + np.exp(-logit))
        share = probability if votes is None else self.noise.binomial(votes, probability) / votes
        return Preference(first, second, float(share), votes or 1)


def play(truth: Truth, votes: int | None, comparisons: int | None = None) -> tuple[Strengths, list[list[Pair]]]:
    """A whole tournament: the strengths it ends with, and its rounds."""
    images = len(truth.strengths)
    tournament = Tournament(images, comparisons or default_comparisons(images))
    rows: list[Preference] = []
    rounds: list[list[Pair]] = []

    def compare(pairs: list[Pair]) -> None:
        rounds.append(pairs)
        rows.extend(row for pair in pairs for row in truth.compare(pair, votes))

    for pairs in tournament.opening():
        compare(pairs)
    while pairs := tournament.next_round(truth.fit(rows, votes)):
        compare(pairs)
    return truth.fit(rows, votes), rounds
