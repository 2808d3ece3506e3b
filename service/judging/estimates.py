"""Estimates that the modes `expected` and `sampled` make of scores and comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from evoquality.contract import OrderPreference, Side, Votes


@dataclass(frozen=True, slots=True)
class ScoreEstimate:
    """The score of one image. `distribution`: probability by score in tenths, of the readable answers."""

    score: float | None
    std: float | None
    unreadable: float
    distribution: Mapping[float, float]
    entropy: float | None = None
    cut_off: float = 0.0
    answers: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class VoteEstimate:
    """One order of presentation: votes or probabilities for the image shown first, for the second, and for neither,
    because the answer is unreadable or was cut off.

    Counts in sampled mode, probabilities that sum to 1 in expected mode.
    """

    shown_first: float
    shown_second: float
    unreadable: float
    cut_off: float = 0.0
    answers: Sequence[str] | None = None

    @property
    def asked(self) -> float:
        """All votes, or the sum of all probabilities."""
        return self.shown_first + self.shown_second + self.unreadable + self.cut_off

    @property
    def preference(self) -> float | None:
        """Share of the readable answers that prefer the image shown first; None without readable answers."""
        readable = self.shown_first + self.shown_second
        return self.shown_first / readable if readable > 0 else None


def as_probability(sum_or_product: float) -> float:
    """The probability that a computed number stands for: rounding may take it past 0 or 1."""
    return min(1.0, max(0.0, sum_or_product))


def in_tenths(weights: Mapping[float, float]) -> dict[float, float]:
    """A distribution over scores as probabilities by tenth, in order. Empty without weights."""
    total = math.fsum(weights.values())
    tenths: dict[float, float] = {}
    for score, weight in weights.items():
        tenth = math.floor(round(score * 1000) / 100) / 10
        tenths[tenth] = tenths.get(tenth, 0.0) + weight
    return {tenth: as_probability(weight / total) for tenth, weight in sorted(tenths.items())}


@dataclass(frozen=True, slots=True)
class CompareEstimate:
    """One comparison over both orders of presentation."""

    probability_first: float | None
    position_bias: float | None
    votes: Votes | None
    unreadable: float
    cut_off: float
    orders: list[OrderPreference]

    def preferred(self, margin: float) -> Literal["first", "second", "tie"] | None:
        """The better image; a tie within `margin` of one half; None if no answer was readable."""
        if self.probability_first is None:
            return None
        if abs(self.probability_first - 0.5) <= margin:
            return "tie"
        return "first" if self.probability_first > 0.5 else "second"


def combine_orders(straight: VoteEstimate, crossed: VoteEstimate, samples: int | None) -> CompareEstimate:
    """One preference free of position bias. In `crossed` the caller's second image was shown first."""
    first = straight.shown_first + crossed.shown_second
    second = straight.shown_second + crossed.shown_first
    asked = straight.asked + crossed.asked
    return CompareEstimate(
        probability_first=_mean_of_orders(straight, crossed) if samples is None else _share(first, second),
        position_bias=_position_bias(straight, crossed),
        votes=None if samples is None else Votes(first=int(first), second=int(second)),
        unreadable=(straight.unreadable + crossed.unreadable) / asked,
        cut_off=(straight.cut_off + crossed.cut_off) / asked,
        orders=[_order("first", straight, samples), _order("second", crossed, samples)],
    )


def _share(first: float, second: float) -> float | None:
    return first / (first + second) if first + second > 0 else None


def _mean_of_orders(straight: VoteEstimate, crossed: VoteEstimate) -> float | None:
    """Both orders count alike, even if one of them is answered less readably."""
    orders = [_share(straight.shown_first, straight.shown_second), _share(crossed.shown_second, crossed.shown_first)]
    known = [preference for preference in orders if preference is not None]
    return sum(known) / len(known) if known else None


def _position_bias(straight: VoteEstimate, crossed: VoteEstimate) -> float | None:
    if straight.preference is None or crossed.preference is None:
        return None
    return (straight.preference + crossed.preference) / 2 - 0.5


def _order(shown_first: Side, estimate: VoteEstimate, samples: int | None) -> OrderPreference:
    first, second = estimate.shown_first, estimate.shown_second
    if shown_first == "second":
        first, second = second, first
    return OrderPreference(
        shown_first=shown_first,
        probability_first=_share(first, second),
        votes=None if samples is None else Votes(first=int(first), second=int(second)),
        unreadable=estimate.unreadable / estimate.asked,
        cut_off=estimate.cut_off / estimate.asked,
        answers=None if estimate.answers is None else list(estimate.answers),
    )
