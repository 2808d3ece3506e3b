"""The majority of all K votes on a pair, predicted from fewer: to stop asking early, and to judge labels.

The stopping rule is stochastic curtailment by predictive probability (Lan, Simon and Halperin, 1982; Lee and Liu,
Clinical Trials 5:93, 2008). Adaptive-Consistency (arXiv 2305.11860) stops sampling answers of language models in this
way, with the majority of infinitely many instead of K. After `first` and `second` votes the next vote goes to the first
image with a probability whose posterior is Beta(first + 1, second + 1). So the number of first's votes among those left
is beta-binomial, and with it the probability that they change the majority.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, reduce

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln
from scipy.stats import betabinom, binom

from trainer.voting.votes import PairVotes

_UNIFORM = 1 / 6
"""E[m (1 - m)] for a uniform m."""
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


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a few pairs tell about the thoughts of a model, before the votes on all of them."""

    worth: float = 1.0
    """The sampled votes that a thought is worth: a vote's variance over that of the probability behind a thought."""
    prior: float = 1.0
    """The pairs' preferences follow Beta(prior, prior): 1 is uniform, less means clearer preferences."""


UNCALIBRATED = Calibration()
"""Thoughts that decide their answers, and preferences of any clearness: as sampled votes are stopped."""


def calibration(shares: Sequence[Sequence[float]], orders: int) -> Calibration:
    """The moments' estimates from the first image's share behind some thoughts, a row for each pair.

    A share is the mean of one thought in each of `orders`. Had votes been sampled instead, its variance would be that
    of a binomial share, m (1 - m) / orders. The prior follows from E[m (1 - m)] = prior / (4 prior + 2). One pair more
    with uniform preferences, whose thoughts decide the answers, keeps both estimates careful.
    """
    between = [float(np.var(row, ddof=1)) for row in shares]
    means = [float(np.mean(row)) for row in shares]
    whole = [m * (1 - m) + s / len(row) for m, s, row in zip(means, between, shares, strict=True)]
    worth = (sum(whole) + _UNIFORM) / (orders * sum(between) + _UNIFORM)
    spread = min(_UNIFORM, (sum(whole) + _UNIFORM) / (len(whole) + 1))
    return Calibration(max(1.0, worth), 2 * spread / (1 - 4 * spread))


def label_change(votes: PairVotes, left: int, known: Calibration) -> float:
    """The expected change of a label by probabilities through `left` further thoughts: from 1 to 0 is 1, to a tie half.

    As `change`, with three differences: a thought counts as `worth` votes, preferences have a prior, and the label has
    a tie margin. Votes of both orders are pooled.
    """
    if left == 0 or votes.label is None:
        return float(left > 0)
    first, second = votes.first_votes, votes.second_votes
    drawn = max(1, round(known.worth * left))
    low, high = (
        (share * (first + second + left) - first) * drawn / left
        for share in (0.5 - votes.tie_margin / 2, 0.5 + votes.tie_margin / 2)
    )
    further = np.arange(drawn + 1)
    probabilities = _beta_binomial(further, known.worth * first + known.prior, known.worth * second + known.prior)
    loses, wins = probabilities[further < low].sum(), probabilities[further > high].sum()
    ties = 1 - loses - wins
    return float(loses * votes.label + ties * abs(votes.label - 0.5) + wins * (1 - votes.label))


def _beta_binomial(counts: NDArray[np.int_], a: float, b: float) -> NDArray[np.float64]:
    """The probabilities of all counts from 0 to n: a hundredth of the time that scipy's distribution takes."""
    n = len(counts) - 1
    return np.exp(betaln(counts + a, n - counts + b) - betaln(a, b) - betaln(counts + 1, n - counts + 1)) / (n + 1)


def expected_agreement(votes: Sequence[PairVotes]) -> float | None:
    """The expected share of labels that agree with those of a full vote of the paper's K samples, as far as the votes
    themselves can say; a tie against a decided label counts half. None if no pair has a label."""
    labelled = [one for one in votes if one.label is not None]
    found = [_of_samples(one) if one.by == "samples" else _of_exact(one) for one in labelled]
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
