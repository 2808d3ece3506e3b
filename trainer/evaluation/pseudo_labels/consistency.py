"""Consistency of votes without a truth: circular triples and position bias.

In a circular triple a beats b, b beats c, and c beats a: no scores can order it as voted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from scipy.sparse import csr_array

from trainer.evaluation.pseudo_labels.accuracy import PARTS, Array, Rate, equal_widths, numbered, rate
from trainer.voting.groups import Group
from trainer.voting.votes import PairVotes, labels_of

COIN_FLIPS = 0.25
"""Share of circular triples in random votes: two of the eight outcomes."""


@dataclass(frozen=True, slots=True)
class Cycles:
    """Triples of images whose three pairs were voted on.

    A triple with a tie counts as a triple but not as circular, since it can be ordered either way.
    """

    triples: int
    decided: int
    """Triples without a tie."""
    circular: int

    @property
    def share(self) -> float | None:
        """Share of circular triples among those without a tie."""
        return self.circular / self.decided if self.decided else None


def cycles(votes: Sequence[PairVotes]) -> Cycles:
    """Counts triples by the traces of the graphs' third powers; pairs without a label are left out."""
    labelled = [vote for vote in votes if vote.label is not None]
    ends = numbered([(vote.first, vote.second) for vote in labelled])
    labels = np.array([vote.label for vote in labelled], float)
    size = int(ends.max(initial=-1)) + 1
    wins, ties = _graph(np.r_[ends[labels == 1], ends[labels == 0][:, ::-1]], size), _graph(ends[labels == 0.5], size)
    decided = wins + wins.T
    voted = decided + ties + ties.T
    return Cycles(_walks(voted, voted) // 6, _walks(decided, decided) // 6, _walks(wins, wins.T) // 3)


def consistence(votes: Sequence[PairVotes], groups: Sequence[Group]) -> float | None:
    """Mean of Kendall and Babington Smith's coefficient zeta (Biometrika 31, 1940) over fully decided groups.

    1 without circular triples, 0 with the maximal number. None without a decided group of three or more images.
    """
    labels = labels_of(votes)
    found = []
    for group in groups:
        asked = [labels.get(pair) for pair in combinations(group, 2)]
        if len(group) > 2 and all(label in (0, 1) for label in asked):
            found.append(zeta([round(sum(labels[one, two] for two in group if two != one)) for one in group]))
    return float(np.mean(found)) if found else None


def zeta(wins: Sequence[int]) -> float:
    """The coefficient from the number of wins of each of n >= 3 images."""
    n = len(wins)
    most = (n**3 - n) / 24 if n % 2 else (n**3 - 4 * n) / 24
    return 1 - (comb(n, 3) - sum(comb(won, 2) for won in wins)) / most


def _graph(edges: np.ndarray, size: int) -> csr_array:
    return csr_array((np.ones(len(edges), np.int64), (edges[:, 0], edges[:, 1])), (max(size, 1), max(size, 1)))


def _walks(graph: csr_array, back: csr_array) -> int:
    """Number of closed walks of three edges: the trace of the third power, with `back` the transposed graph."""
    return int((graph @ graph).multiply(back).sum())


@dataclass(frozen=True, slots=True)
class PositionBias:
    """Pairs with a readable vote in both orders."""

    shown_first: Rate
    """Mean preference for the image shown first, averaged over both orders; 0.5 without a bias."""
    flips: Rate
    """Share of pairs whose winner changes with the order. With few samples per order this also happens by chance."""
    to_first: float | None
    """Share of flips in which the image shown first wins; None without flips."""


@dataclass(frozen=True, slots=True)
class BiasRow:
    """Position bias of the pairs in one part of the range of true differences."""

    mean: float
    """Mean true difference."""
    position: PositionBias


def position_bias(votes: Sequence[PairVotes]) -> PositionBias | None:
    """Position bias over all pairs voted on in both orders; None without any."""
    asked = [vote for vote in votes if sum(vote.forward) > 0 and sum(vote.backward) > 0]
    if not asked:
        return None
    forward, backward = (_shares([getattr(vote, order) for vote in asked]) for order in ("forward", "backward"))
    dyads = numbered([(vote.first, vote.second) for vote in asked])
    flips = (forward - 0.5) * (backward - 0.5) < 0
    first, contradicted = rate((forward + 1 - backward) / 2, dyads), rate(flips.astype(float), dyads)
    assert first and contradicted
    return PositionBias(first, contradicted, float((forward[flips] > 0.5).mean()) if flips.any() else None)


def position_by_difference(votes: Sequence[PairVotes], truth: Mapping[str, float]) -> list[BiasRow]:
    """Rows of equal width in the true difference, in ascending order, true ties included."""
    known = [vote for vote in votes if vote.first in truth and vote.second in truth]
    differences = np.array([abs(truth[vote.first] - truth[vote.second]) for vote in known], float)
    found = []
    for part in equal_widths(differences, PARTS, 0, differences.max(initial=0)):
        of_part = position_bias([known[place] for place in np.flatnonzero(part)])
        if of_part:
            found.append(BiasRow(float(differences[part].mean()), of_part))
    return found


def _shares(orders: list[list[float]]) -> Array:
    """(P,) First image's share of an order's readable votes."""
    votes = np.array(orders, float)
    return np.asarray(votes[:, 0] / votes.sum(1))
