"""One preference out of two orders of presentation."""

from __future__ import annotations

import pytest

from service.judging.estimates import VoteEstimate, combine_orders


def test_each_order_counts_alike_where_probabilities_are_exact():
    straight, crossed = VoteEstimate(0.1, 0.0, 0.9), VoteEstimate(0.9, 0.1, 0.0)
    estimate = combine_orders(straight, crossed, samples=None)
    assert estimate.probability_first == pytest.approx((1.0 + 0.1) / 2)
    assert estimate.unreadable == pytest.approx(0.45)
    assert estimate.position_bias == pytest.approx((1.0 + 0.9) / 2 - 0.5)


def test_votes_are_counted_one_by_one():
    estimate = combine_orders(VoteEstimate(1, 0, 3), VoteEstimate(3, 1, 0), samples=8)
    assert estimate.probability_first == pytest.approx(2 / 5)
    assert estimate.votes and (estimate.votes.first, estimate.votes.second) == (2, 3)


@pytest.mark.parametrize(("margin", "preferred"), [(0.0, "first"), (0.09, "first"), (0.1001, "tie")])
def test_the_caller_says_what_is_a_tie(margin: float, preferred: str):
    both = VoteEstimate(0.6, 0.4, 0.0), VoteEstimate(0.4, 0.6, 0.0)
    assert combine_orders(*both, samples=None).preferred(margin) == preferred


def test_one_readable_order_is_enough_and_none_is_no_preference():
    nothing = VoteEstimate(0.0, 0.0, 1.0)
    assert combine_orders(VoteEstimate(0.8, 0.2, 0.0), nothing, None).probability_first == pytest.approx(0.8)
    assert combine_orders(nothing, nothing, None).preferred(0.0) is None
