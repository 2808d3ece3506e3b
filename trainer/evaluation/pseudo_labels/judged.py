"""Voted pairs beside the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.pseudo_labels.rates import Array, Dyads, numbered
from trainer.voting.votes import PairVotes, margin


@dataclass(frozen=True, slots=True)
class Judged:
    """P pairs of which the truth prefers one image and a vote was readable."""

    label: Array
    """(P,) 1 where the label is right, 0 where it is wrong, 0.5 for a tie."""
    majority: Array
    """(P,) The same of the majority, however narrow: before the tie margin."""
    margin: Array
    """(P,) How decided the vote is, 0 to 1."""
    difference: Array
    """(P,) How far apart the images truly are; above 0."""
    dyads: Dyads

    def part(self, chosen: NDArray[np.bool_]) -> Judged:
        """Some of the pairs."""
        return Judged(*(getattr(self, name)[chosen] for name in self.__slots__))


def judged(votes: Sequence[PairVotes], truth: Mapping[str, float]) -> Judged:
    """Ties of the truth, pairs without a label and images whose truth is not known are left out."""
    known = [
        (vote, truth[vote.first] - truth[vote.second])
        for vote in votes
        if vote.label is not None and vote.first in truth and vote.second in truth
    ]
    decided = [(vote, difference) for vote, difference in known if difference != 0]
    return Judged(
        label=np.array([right(vote, difference) for vote, difference in decided], float),
        majority=np.array([right(majority(vote), difference) for vote, difference in decided], float),
        margin=np.array([margin(vote) for vote, _ in decided], float),
        difference=np.array([abs(difference) for _, difference in decided], float),
        dyads=numbered([(vote.first, vote.second) for vote, _ in decided]),
    )


def right(vote: PairVotes, difference: float) -> float | None:
    """How right a label is where the first image is truly better by `difference`: 1, 0.5 for a tie, or 0; None where
    the truth is a tie or the pair has no label."""
    if difference == 0 or vote.label is None:
        return None
    return 1 - abs(vote.label - float(difference > 0))


def majority(vote: PairVotes) -> PairVotes:
    """The vote, tied only by equal votes."""
    return replace(vote, tie_margin=0.0)
