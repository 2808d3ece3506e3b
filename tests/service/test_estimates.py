"""One preference out of two orders of presentation."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from evoquality.contract import VersionInfo, VoteProbabilities
from service.engine.protocol import END, Paths, Step
from service.judging.estimates import VoteEstimate, combine_orders, in_tenths
from service.judging.expected import Expected, _estimate


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


def test_no_figure_of_a_score_leaves_its_range_by_a_rounding():
    """Confident models put everything into one tenth, whose parts rarely sum to exactly 1."""
    noise = np.random.default_rng(0)
    for _ in range(5000):
        probabilities = np.zeros(401)
        first = 10 * noise.integers(0, 40)
        probabilities[first : first + 10] = noise.dirichlet(np.ones(10))
        if first == 390:
            probabilities = np.roll(probabilities, 1)
        estimate = _estimate(probabilities)
        assert max(estimate.distribution.values()) <= 1 and 0 <= estimate.unreadable <= 1
        assert 1 <= estimate.score <= 5 and estimate.std >= 0 and estimate.entropy >= 0
    certain = np.zeros(401)
    certain[400] = 1.0000000000000002
    assert _estimate(certain).score == 5


def test_no_share_of_the_samples_exceeds_one_by_a_rounding():
    for count in range(1, 200):
        scores = {3 + index / 1000: 1.0 for index in range(count)}
        assert max(in_tenths(scores).values()) <= 1


@pytest.mark.parametrize("certainty", [1.0, 1.0000000000000002, 1.0000002])
def test_no_vote_exceeds_one_by_a_rounding(certainty: float):
    class Certain:
        async def follow(self, *_: object, **__: object) -> Paths:
            return Paths([[Step("0", {"0": certainty, "1": 0.0, END: 0.0})]], frozenset({"v"}))

    version = VersionInfo(id="v", parent=None, created=datetime.now(UTC), profile="plain", origin="", metrics={})
    image = Image.new("RGB", (32, 32))
    vote = asyncio.run(Expected(Certain()).vote(version, (image, image)))
    assert VoteProbabilities(first=vote.shown_first, second=vote.shown_second).first == 1
    assert vote.unreadable == 0
