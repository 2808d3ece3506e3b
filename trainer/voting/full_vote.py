"""How often labels agree with those of a full vote of K samples, as far as the votes themselves can tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binom

from trainer.voting.stopping import change
from trainer.voting.vote import PairVotes

FULL = 32
"""K of the paper."""


def expected_agreement(votes: Sequence[PairVotes], full: int = FULL) -> float | None:
    """The mean over pairs with a label; a tie against a decided label counts half. None if no pair has one."""
    found = [_of_exact(one, full) if one.by == "exact" else _of_samples(one, full) for one in votes if _labelled(one)]
    return float(np.mean(found)) if found else None


def _labelled(votes: PairVotes) -> bool:
    return votes.label is not None


def _of_exact(votes: PairVotes, full: int) -> float:
    """The full vote draws half of its samples in each order, with these probabilities among the readable ones."""
    orders = [
        binom.pmf(np.arange(full // 2 + 1), full // 2, _share(order)) for order in (votes.forward, votes.backward)
    ]
    firsts = np.convolve(*orders)
    labels = 0.5 + 0.5 * np.sign(2 * np.arange(full + 1) - full)
    return float(firsts @ (1 - np.abs(labels - (votes.label or 0.0))))


def _of_samples(votes: PairVotes, full: int) -> float:
    """These are the first of the full vote's; the others follow as `stopping` assumes."""
    one, other = int(votes.first_votes), int(votes.second_votes)
    return 1 - change(min(one, other), max(one, other), max(0, full - votes.asked))


def _share(order: Sequence[float]) -> float:
    return order[0] / sum(order) if sum(order) > 0 else 0.5
