"""The majority of all K votes on a pair, predicted from fewer: to stop asking early, and to judge labels.

The stopping rule is stochastic curtailment by predictive probability (Lan, Simon and Halperin, 1982; Lee and Liu,
Clinical Trials 5:93, 2008). Adaptive-Consistency (arXiv 2305.11860) stops sampling answers of language models in this
way, with the majority of infinitely many instead of K. After `first` and `second` votes the next vote goes to the first
image with a probability whose posterior is Beta(first + 1, second + 1). So the number of first's votes among those left
is beta-binomial, and with it the probability that they change the majority.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, reduce

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom, binom

from trainer.voting.votes import PairVotes

_FULL = 32
"""K of the paper."""


def decided(first: int, second: int, left: int, error: float) -> bool:
    """True if the majority of all K votes differs from the present one with a probability of at most `error`.

    So the label of a pair stopped early differs from the label of all K votes with a probability of at most `error`,
    on average over pairs whose preferences are uniform on [0, 1], and however often one looks. An error of 0 stops
    only when no vote could change the majority. Votes of both orders are pooled: if one position is preferred, the sum
    of balanced orders varies less than assumed here. Unreadable answers count for neither side; those left are
    assumed to be readable, which stops later than necessary.
    """
    return change(min(first, second), max(first, second), left) <= error


@cache
def change(fewer: int, more: int, left: int) -> float:
    """The probability that `left` further votes undo the majority; 1 for a tie unless none is left."""
    if left == 0 or fewer == more:
        return float(left > 0)
    return float(betabinom.cdf((left - more + fewer) // 2, left, more + 1, fewer + 1))


def first_look(votes: int, error: float) -> int:
    """The fewest votes, half in each order, that can decide a pair, if all are for one side; `votes` if none can."""
    return next((asked for asked in range(2, votes, 2) if decided(asked, 0, votes - asked, error)), votes)


def expected_agreement(votes: Sequence[PairVotes]) -> float | None:
    """The expected share of labels that agree with those of a full vote of the paper's K samples, as far as the votes
    themselves can say; a tie against a decided label counts half. None if no pair has a label."""
    labelled = [one for one in votes if one.label is not None]
    found = [_of_exact(one) if one.by == "exact" else _of_samples(one) for one in labelled]
    return float(np.mean(found)) if found else None


def _of_exact(votes: PairVotes) -> float:
    """The full vote draws as many samples in each order asked, with these probabilities among the readable ones."""
    asked = [order for order in (votes.forward, votes.backward) if sum(order)]
    each = _FULL // len(asked)
    firsts = reduce(np.convolve, (binom.pmf(np.arange(each + 1), each, order[0] / sum(order)) for order in asked))
    return _agreement(firsts, 2 * np.arange(_FULL + 1) - _FULL, (votes.label or 0.0) - 0.5)


def _of_samples(votes: PairVotes) -> float:
    """These votes are the first of the full vote; the others are beta-binomial."""
    return _of_counts(int(votes.first_votes), int(votes.second_votes), max(0, _FULL - votes.asked))


@cache
def _of_counts(first: int, second: int, left: int) -> float:
    more = np.arange(left + 1)
    return _agreement(
        betabinom.pmf(more, left, first + 1, second + 1), first - second + 2 * more - left, first - second
    )


def _agreement(probabilities: NDArray[np.float64], margins: NDArray[np.int_], margin: float) -> float:
    """Expected agreement of the label with the sign of `margin` with labels by `margins`, which have `probabilities`;
    a margin is the votes for first less those for second."""
    return float(probabilities @ (1 - np.abs(np.sign(margins) - np.sign(margin)) / 2))
