"""When a pair has enough votes: once the majority of all K is known, or as good as known.

The rule is stochastic curtailment by predictive probability (Lan, Simon and Halperin, 1982; Lee and Liu, Clinical
Trials 5:93, 2008), as Adaptive-Consistency (arXiv 2305.11860) stops sampling answers of language models, with the
majority of K in place of that of infinitely many. Of a pair's votes so far, `first` and `second`, the next one is
first's with a probability that has the posterior Beta(first + 1, second + 1); so how many of those left would be
first's is beta-binomial, and with it the probability that they change the majority.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, reduce

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom, binom

from trainer.voting.votes import PairVotes


def decided(first: int, second: int, left: int, error: float) -> bool:
    """Whether to stop: the majority of all K votes differs from the present one with a probability of `error` at most.

    The label of a pair stopped so differs from the label of all K votes with a probability of at most `error`,
    however often one looks, on average over pairs whose preferences are spread evenly from 0 to 1. An error of 0 stops
    only when no vote could change the majority. Votes of both orders are taken as alike: if one position is
    preferred, the sum of balanced orders varies less than is assumed here. Unreadable answers are neither side's;
    those left are assumed to be readable, which stops later than needed.
    """
    return change(min(first, second), max(first, second), left) <= error


@cache
def change(fewer: int, more: int, left: int) -> float:
    """The probability that `left` further votes undo the majority; 1 for a tie unless none is left."""
    if left == 0 or fewer == more:
        return float(left > 0)
    return float(betabinom.cdf((left - more + fewer) // 2, left, more + 1, fewer + 1))


def first_look(votes: int, error: float) -> int:
    """The fewest votes, half in each order, that can decide a pair: by all being for one side; all if none can."""
    return next((asked for asked in range(2, votes, 2) if decided(asked, 0, votes - asked, error)), votes)


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
