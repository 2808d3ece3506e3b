"""How often scores order held-back pairs as the votes do, by how decided the votes were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.promotion.behaviour import ordered
from trainer.voting.pairs import Group, pairs_of
from trainer.voting.vote import PairVotes, margin

QUARTERS = 4
Scores = Mapping[str, float]


def by_margin(
    votes: Sequence[PairVotes], held_back: Sequence[Group], before: Scores, after: Scores
) -> list[dict[str, Any]]:
    """Held-back pairs from the closest to the most decided, a quarter a row: the mean margin of their votes, their
    number, and the share ordered as voted by the scores before and after. Ties of the votes are left out."""
    asked, scored = set(map(frozenset, pairs_of(held_back))), before.keys() & after.keys()
    decided = [vote for vote in votes if frozenset((vote.first, vote.second)) in asked and vote.label in (0, 1)]
    known = sorted((vote for vote in decided if {vote.first, vote.second} <= scored), key=margin)
    quarters = [[known[place] for place in places] for places in np.array_split(np.arange(len(known)), QUARTERS)]
    return [
        {
            "margin": sum(map(margin, part)) / len(part),
            "pairs": len(part),
            "before": _agreement(part, before),
            "after": _agreement(part, after),
        }
        for part in quarters
        if part
    ]


def _agreement(votes: Sequence[PairVotes], scores: Scores) -> float:
    agreed = [ordered(scores[vote.first] - scores[vote.second], vote.label or 0.0) for vote in votes]
    return sum(agreed) / len(agreed)
