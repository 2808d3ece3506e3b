"""How often labels agree with those of a full vote of K samples, as far as the votes themselves can tell."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, reduce

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom, binom

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
    """The full vote draws as many samples in each order asked, with these probabilities among the readable ones."""
    asked = [order for order in (votes.forward, votes.backward) if sum(order)]
    each = full // len(asked)
    firsts = reduce(np.convolve, (binom.pmf(np.arange(each + 1), each, order[0] / sum(order)) for order in asked))
    return _agreement(firsts, 2 * np.arange(full + 1) - full, (votes.label or 0.0) - 0.5)


def _of_samples(votes: PairVotes, full: int) -> float:
    """These are the first of the full vote's; the others follow as `stopping` assumes."""
    return _of_counts(int(votes.first_votes), int(votes.second_votes), max(0, full - votes.asked))


@cache
def _of_counts(first: int, second: int, left: int) -> float:
    more = np.arange(left + 1)
    return _agreement(
        betabinom.pmf(more, left, first + 1, second + 1), first - second + 2 * more - left, first - second
    )


def _agreement(probabilities: NDArray[np.float64], margins: NDArray[np.int_], margin: float) -> float:
    """Of the label by the sign of `margin`, the votes for first less those for second, with those by `margins`."""
    return float(probabilities @ (1 - np.abs(np.sign(margins) - np.sign(margin)) / 2))
