"""Position bias: how far a vote depends on which image is shown first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.evaluation.pseudo_labels.accuracy import PARTS
from trainer.evaluation.pseudo_labels.bins import equal_widths
from trainer.evaluation.pseudo_labels.rates import Array, Rate, numbered, rate
from trainer.voting.votes import PairVotes


@dataclass(frozen=True, slots=True)
class Position:
    """Pairs with a readable vote in both orders."""

    shown_first: Rate
    """The mean preference for the image shown first: of each pair that of both orders. Without a bias a half."""
    flips: Rate
    """How often the two orders contradict each other: another image wins when they change places. Few samples in each
    order do so by chance, too."""
    to_first: float | None
    """Of the flips, the share in which it is the image shown first that wins; None without flips."""


@dataclass(frozen=True, slots=True)
class Row:
    """The pairs of one part of the range of true differences."""

    mean: float
    """Of the true differences."""
    position: Position


def position(votes: Sequence[PairVotes]) -> Position | None:
    """Over all pairs that were asked in both orders; None if there are none."""
    asked = [vote for vote in votes if sum(vote.forward) > 0 and sum(vote.backward) > 0]
    if not asked:
        return None
    forward, backward = (_shares([getattr(vote, order) for vote in asked]) for order in ("forward", "backward"))
    dyads = numbered([(vote.first, vote.second) for vote in asked])
    flips = (forward - 0.5) * (backward - 0.5) < 0
    first, contradicted = rate((forward + 1 - backward) / 2, dyads), rate(flips.astype(float), dyads)
    assert first and contradicted
    return Position(first, contradicted, float((forward[flips] > 0.5).mean()) if flips.any() else None)


def by_difference(votes: Sequence[PairVotes], truth: Mapping[str, float]) -> list[Row]:
    """From alike to far apart, in equal widths up to the largest true difference; ties of the truth included."""
    known = [vote for vote in votes if vote.first in truth and vote.second in truth]
    differences = np.array([abs(truth[vote.first] - truth[vote.second]) for vote in known], float)
    found = []
    for part in equal_widths(differences, PARTS, 0, differences.max(initial=0)):
        of_part = position([known[place] for place in np.flatnonzero(part)])
        if of_part:
            found.append(Row(float(differences[part].mean()), of_part))
    return found


def _shares(orders: list[list[float]]) -> Array:
    """(P,) The first image's share of each order's readable votes."""
    votes = np.array(orders, float)
    return np.asarray(votes[:, 0] / votes.sum(1))
