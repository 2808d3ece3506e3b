"""How often a round's votes are right, where the truth is known: the demo's pool, whose originals are undamaged.

The truth is `trainer/demo/truth.py`'s. It is looked up after the round, from its files; the round never sees it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.demo.truth import quality
from trainer.pool.pool import Pool
from trainer.voting.vote import PairVotes


def vote_accuracy(votes: Sequence[PairVotes], pool: Pool, pairs: int, seed: int = 0) -> float:
    """Share of right majorities among `pairs` voted pairs drawn at random; a tied vote counts half."""
    drawn = np.random.default_rng(seed).permutation(len(votes))[:pairs]
    truth = {image: true_quality(pool, image) for row in drawn for image in (votes[row].first, votes[row].second)}
    right = [_right(votes[row], truth[votes[row].first] - truth[votes[row].second]) for row in drawn]
    return float(np.mean([share for share in right if share is not None]))


def true_quality(pool: Pool, image_id: str) -> float:
    """The truth of a pool image, 1 to 5, by the distortion that made it."""
    image = pool.by_id[image_id]
    return 5.0 if image.kind is None or image.level is None else quality([(image.kind, image.level)])


def _right(votes: PairVotes, difference: float) -> float | None:
    """Whether the majority is right; None where the truth is a tie or no vote was readable."""
    if difference == 0 or votes.label is None:
        return None
    return 1 - abs(votes.label - float(difference > 0))
