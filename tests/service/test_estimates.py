"""One preference out of two orders of presentation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from evoquality.contract import ScoreProbability, VersionInfo, VoteProbabilities
from service.engine.protocol import END, Paths, Step
from service.judging.estimates import ScoreEstimate, VoteEstimate, combine_orders, in_tenths
from service.judging.expected import Expected, _estimate
from service.judging.score_tree import DIGITS, SCORES, TOKENS, FloatArray, ScoreTree
from service.ranking.strengths import Kind, Preference, fit
from tests.service.fake_engine import FakeEngine


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


def scores(*digits: dict[str, float]) -> FloatArray:
    """The probabilities of all scores, by those of the digits of "u.th"."""
    tree = ScoreTree()
    unit, point, tenth, hundredth = digits
    for beginning in tree.unknown():
        tree.grow(beginning, [Step("3", full(unit))])
    while beginnings := tree.unknown():
        for beginning in beginnings:
            place = [unit, point, tenth, hundredth][len(beginning)]
            tree.grow(beginning, [Step(max(place, key=place.__getitem__), full(place))])
    return tree.scores()


def full(some: dict[str, float]) -> dict[str, float]:
    return dict.fromkeys(TOKENS, 0.0) | some


def test_no_figure_leaves_its_bounds_by_rounding():
    """Distributions within one tenth: their sums come out as 1.0000000000000002 every tenth time."""
    dice = np.random.default_rng(5)
    for _ in range(2000):
        parts = dict(zip(DIGITS, dice.dirichlet(np.ones(10)).tolist(), strict=True))
        tenth = str(dice.integers(10))
        estimate = _estimate(scores({"3": 1.0}, {".": 1.0}, {tenth: 1.0}, parts))
        assert_within_bounds(estimate)
        weights = {round(3 + int(tenth) / 10 + int(digit) / 100, 2): part for digit, part in parts.items()}
        assert all(0 <= probability <= 1 for probability in in_tenths(weights).values())


@pytest.mark.parametrize("end", [0, -1])
def test_the_ends_of_the_scale_are_never_passed(end: int):
    """A model that is all but sure of 5.00: the mean of its scores comes out as 5.000000000000001 now and then."""
    dice = np.random.default_rng(6)
    for _ in range(3000):
        probabilities = np.zeros(len(SCORES))
        probabilities[dice.integers(len(SCORES), size=5)] = dice.random(5) * 10.0 ** -dice.integers(14, 18)
        probabilities[end] = dice.random()
        assert_within_bounds(_estimate(probabilities))


def assert_within_bounds(estimate: ScoreEstimate) -> None:
    assert estimate.score is not None and 1 <= estimate.score <= 5
    assert estimate.std is not None and 0 <= estimate.std <= 2
    assert estimate.entropy is not None and estimate.entropy >= 0
    assert 0 <= estimate.unreadable <= 1
    for score, probability in estimate.distribution.items():
        ScoreProbability(score=score, probability=probability)


@pytest.mark.parametrize("sure", [1 + 1e-7, 1.0000000000000002, 1.0])
def test_votes_of_a_model_that_is_more_than_sure_are_probabilities(run, sure: float):
    class Sure(FakeEngine):
        async def follow(self, *arguments: Any, **options: Any) -> Paths:
            return Paths([[Step("0", {"0": sure, "1": 1e-9, END: 0.0})]], frozenset({self.version}))

    version = VersionInfo.model_construct(id="v", profile="plain")
    vote = run(Expected(Sure("v")).vote(version, (Image.new("RGB", (32, 32)),) * 2))
    VoteProbabilities(first=vote.shown_first, second=vote.shown_second)
    estimate = combine_orders(vote, vote, samples=None)
    assert estimate.probability_first is not None and 0 <= estimate.probability_first <= 1
    assert estimate.position_bias is not None and abs(estimate.position_bias) <= 0.5
    assert 0 <= estimate.unreadable <= 1


@pytest.mark.parametrize("kind", ["votes", "probabilities"])
def test_every_strength_and_its_error_is_a_number(kind: Kind):
    dice = np.random.default_rng(7)
    for images in (2, 3, 5, 20):
        pairs = [(a, b) for a in range(images) for b in range(a + 1, images)]
        for shares in (0.0, 1.0, 0.5, dice.random(len(pairs))):
            asked = zip(pairs, np.broadcast_to(shares, len(pairs)), strict=True)
            found = fit(images, [Preference(*pair, float(share), 1e-6) for pair, share in asked], kind)
            errors = found.standard_errors()
            assert np.isfinite(found.values).all() and (errors is None or np.isfinite(errors).all())
