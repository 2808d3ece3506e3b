"""How often a round's votes are right, where the truth is known: the demo's pool, whose originals are undamaged.

The truth is `trainer/demo/truth.py`'s. It is looked up after the round, from its files; the round never sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.demo.truth import quality
from trainer.pool.pool import Pool
from trainer.voting.vote import Pair, PairVotes


@dataclass(frozen=True, slots=True)
class Audit:
    """How right the majority is on audited pairs, and the pairs of which it was surest, by whether it was."""

    accuracy: float
    """Share of right majorities; a tied vote counts half."""
    right: list[Pair]
    wrong: list[Pair]


def audit(votes: Sequence[PairVotes], pool: Pool, pairs: int, *, examples: int = 24, seed: int = 0) -> Audit:
    """Audits `pairs` voted pairs drawn at random; pairs that are truly a tie say nothing."""
    drawn = [votes[row] for row in np.random.default_rng(seed).permutation(len(votes))[:pairs]]
    truth = {image: true_quality(pool, image) for vote in drawn for image in (vote.first, vote.second)}
    judged = [(vote, _right(vote, truth[vote.first] - truth[vote.second])) for vote in drawn]
    surest = sorted(judged, key=lambda one: -abs(one[0].first_votes - one[0].second_votes))
    right, wrong = ([(vote.first, vote.second) for vote, share in surest if share == wanted] for wanted in (1, 0))
    accuracy = float(np.mean([share for _, share in judged if share is not None]))
    return Audit(accuracy, right[:examples], wrong[:examples])


def true_quality(pool: Pool, image_id: str) -> float:
    """The truth of a pool image, 1 to 5, by the distortion that made it."""
    image = pool.by_id[image_id]
    return 5.0 if image.kind is None or image.level is None else quality([(image.kind, image.level)])


def _right(votes: PairVotes, difference: float) -> float | None:
    """Whether the majority is right; None where the truth is a tie or no vote was readable."""
    if difference == 0 or votes.label is None:
        return None
    return 1 - abs(votes.label - float(difference > 0))
