"""One preference out of two orders of presentation."""

from __future__ import annotations

import pytest

from service.judging.estimates import VoteEstimate
from service.judging.preference import either_order


def test_each_order_counts_alike_where_probabilities_are_exact():
    straight, crossed = VoteEstimate(0.1, 0.0, 0.9), VoteEstimate(0.9, 0.1, 0.0)
    fields = either_order(straight, crossed, margin=0.0, samples=None)
    assert fields["probability_first"] == pytest.approx((1.0 + 0.1) / 2)
    assert fields["unreadable"] == pytest.approx(0.45)
    assert fields["position_bias"] == pytest.approx((1.0 + 0.9) / 2 - 0.5)


def test_votes_are_counted_one_by_one():
    fields = either_order(VoteEstimate(1, 0, 3), VoteEstimate(3, 1, 0), margin=0.0, samples=8)
    assert fields["probability_first"] == pytest.approx(2 / 5)
    assert (fields["votes"].first, fields["votes"].second) == (2, 3)


@pytest.mark.parametrize(("margin", "preferred"), [(0.0, "first"), (0.09, "first"), (0.1001, "tie")])
def test_the_caller_says_what_is_a_tie(margin: float, preferred: str):
    both = VoteEstimate(0.6, 0.4, 0.0), VoteEstimate(0.4, 0.6, 0.0)
    assert either_order(*both, margin=margin, samples=None)["preferred"] == preferred


def test_one_readable_order_is_enough_and_none_is_no_preference():
    nothing = VoteEstimate(0.0, 0.0, 1.0)
    assert either_order(VoteEstimate(0.8, 0.2, 0.0), nothing, 0.0, None)["probability_first"] == pytest.approx(0.8)
    assert either_order(nothing, nothing, 0.0, None)["preferred"] is None
