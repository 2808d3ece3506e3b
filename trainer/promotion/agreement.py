"""Do a candidate's scores order held-back pairs as the votes do, as well as the version's before? With an interval, by
a paired bootstrap over pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.bootstrap import Interval, interval, resample
from trainer.promotion.behaviour import ordered
from trainer.voting.votes import Pair

LEVEL = 0.68
"""Of the interval: one standard error to either side. With it a candidate that is worse by all of
`gate_agreement_loss` passes in about 8 % of rounds (tests/benchmarks/README.md#the-gate)."""
_RESAMPLES = 1000
Scores = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Change:
    """The agreement of two versions' scores with the votes on the same decided pairs, a tie counting half."""

    pairs: int
    before: float
    after: float
    interval: Interval
    """Of after minus before."""


def change(before: Scores, after: Scores, decided: Mapping[Pair, float]) -> Change | None:
    """Compares the scores of two versions on the pairs whose images both could score; None if there are none.

    Pairs with a common picture are not independent, so pictures are resampled: a resample counts a pair as often as the
    products of its pictures' numbers says (the bootstrap of a U-statistic, Arcones and Gine, Annals of Statistics 20,
    1992). It is wide: it counts the noise of single pairs three times, and its 68 % cover the truth in 80 to 84 %.
    """
    known = [pair for pair in decided if all(image in scores for image in pair for scores in (before, after))]
    if not known:
        return None
    was, now = (
        np.array([ordered(scores[one] - scores[other], decided[one, other]) for one, other in known])
        for scores in (before, after)
    )
    numbers = {image: number for number, image in enumerate(dict.fromkeys(image for pair in known for image in pair))}
    first, second = np.array([[numbers[image] for image in pair] for pair in known]).T

    def gain(drawn: NDArray[np.int64]) -> float:
        times = np.bincount(drawn, minlength=len(numbers))
        weights = times[first] * times[second]
        return float((now - was) @ weights / weights.sum())

    with np.errstate(invalid="ignore"):  # a resample without a pair
        found = resample(gain, len(numbers), None, resamples=_RESAMPLES, seed=0)
    return Change(len(known), float(was.mean()), float(now.mean()), interval(found, LEVEL))
