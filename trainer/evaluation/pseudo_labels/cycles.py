"""Cycles among triples: a over b, b over c, and c over a. No scores can order such a triple as voted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from scipy.sparse import csr_array

from trainer.evaluation.pseudo_labels.rates import numbered
from trainer.voting.groups import Group
from trainer.voting.votes import PairVotes, labels_of

COIN_FLIPS = 0.25
"""Of the eight ways in which three coins fall two are cycles."""


@dataclass(frozen=True, slots=True)
class Cycles:
    """All triples of images whose three pairs were voted on.

    A triple with a tie can be ordered either way: it is counted, and is no cycle.
    """

    triples: int
    decided: int
    """Those without a tie."""
    circular: int

    @property
    def share(self) -> float | None:
        """Of the triples without a tie."""
        return self.circular / self.decided if self.decided else None


def cycles(votes: Sequence[PairVotes]) -> Cycles:
    """Counts them by the traces of the graphs' third powers; pairs without a label were not voted on."""
    labelled = [vote for vote in votes if vote.label is not None]
    ends = numbered([(vote.first, vote.second) for vote in labelled])
    labels = np.array([vote.label for vote in labelled], float)
    size = int(ends.max(initial=-1)) + 1
    wins, ties = _graph(np.r_[ends[labels == 1], ends[labels == 0][:, ::-1]], size), _graph(ends[labels == 0.5], size)
    decided = wins + wins.T
    voted = decided + ties + ties.T
    return Cycles(_walks(voted, voted) // 6, _walks(decided, decided) // 6, _walks(wins, wins.T) // 3)


def consistence(votes: Sequence[PairVotes], groups: Sequence[Group]) -> float | None:
    """Kendall and Babington Smith's coefficient zeta (Biometrika 31, 1940), the mean over the groups whose every pair
    has a winner: 1 without a cycle, 0 with as many as there can be. None if there is no such group of three or more.
    """
    labels = labels_of(votes)
    found = []
    for group in groups:
        asked = [labels.get(pair) for pair in combinations(group, 2)]
        if len(group) > 2 and all(label in (0, 1) for label in asked):
            found.append(zeta([round(sum(labels[one, two] for two in group if two != one)) for one in group]))
    return float(np.mean(found)) if found else None


def zeta(wins: Sequence[int]) -> float:
    """The coefficient by how many of the others each of n >= 3 images wins against."""
    n = len(wins)
    most = (n**3 - n) / 24 if n % 2 else (n**3 - 4 * n) / 24
    return 1 - (comb(n, 3) - sum(comb(won, 2) for won in wins)) / most


def _graph(edges: np.ndarray, size: int) -> csr_array:
    return csr_array((np.ones(len(edges), np.int64), (edges[:, 0], edges[:, 1])), (max(size, 1), max(size, 1)))


def _walks(graph: csr_array, back: csr_array) -> int:
    """Walks of three edges that end where they began: the trace of the graph's third power if `back` turns it round."""
    return int((graph @ graph).multiply(back).sum())
