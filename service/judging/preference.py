"""One preference out of both orders of presentation, free of position bias."""

from __future__ import annotations

from typing import Any, Literal

from service.contract import OrderPreference, Side, Votes
from service.judging.estimates import VoteEstimate


def either_order(straight: VoteEstimate, crossed: VoteEstimate, margin: float, samples: int | None) -> dict[str, Any]:
    """The fields of a CompareResponse that both orders decide. In `crossed` the caller's second was shown first."""
    first = straight.shown_first + crossed.shown_second
    second = straight.shown_second + crossed.shown_first
    unreadable = straight.unreadable + crossed.unreadable
    probability = _mean_of_orders(straight, crossed) if samples is None else _share(first, second)
    return {
        "preferred": _preferred(probability, margin),
        "probability_first": probability,
        "position_bias": _position_bias(straight, crossed),
        "votes": None if samples is None else Votes(first=int(first), second=int(second)),
        "unreadable": unreadable / (first + second + unreadable),
        "orders": [_order("first", straight, samples), _order("second", crossed, samples)],
    }


def _share(first: float, second: float) -> float | None:
    return first / (first + second) if first + second > 0 else None


def _mean_of_orders(straight: VoteEstimate, crossed: VoteEstimate) -> float | None:
    """Each order counts alike, also where one of them is answered less readably."""
    orders = [_share(straight.shown_first, straight.shown_second), _share(crossed.shown_second, crossed.shown_first)]
    known = [preference for preference in orders if preference is not None]
    return sum(known) / len(known) if known else None


def _preferred(probability: float | None, margin: float) -> Literal["first", "second", "tie"] | None:
    if probability is None:
        return None
    if abs(probability - 0.5) <= margin:
        return "tie"
    return "first" if probability > 0.5 else "second"


def _position_bias(straight: VoteEstimate, crossed: VoteEstimate) -> float | None:
    if straight.preference is None or crossed.preference is None:
        return None
    return (straight.preference + crossed.preference) / 2 - 0.5


def _order(shown_first: Side, estimate: VoteEstimate, samples: int | None) -> OrderPreference:
    first, second = estimate.shown_first, estimate.shown_second
    if shown_first == "second":
        first, second = second, first
    readable = first + second
    return OrderPreference(
        shown_first=shown_first,
        probability_first=_share(first, second),
        votes=None if samples is None else Votes(first=int(first), second=int(second)),
        unreadable=estimate.unreadable / (readable + estimate.unreadable),
        answers=None if estimate.answers is None else list(estimate.answers),
    )
