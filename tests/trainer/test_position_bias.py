"""How far votes depend on which image is shown first."""

from __future__ import annotations

import pytest

from tests.trainer.votes import exact, one_order
from trainer.evaluation.pseudo_labels.position import by_difference, position
from trainer.voting.votes import PairVotes


def test_the_preference_for_the_first_position_is_the_mean_of_both_orders() -> None:
    found = position([exact("ab", 0.9, 0.3), exact("cd", 0.6, 0.6)])
    assert found
    assert found.shown_first.share == pytest.approx(((0.9 + 0.7) / 2 + 0.5) / 2)


def test_orders_contradict_each_other_where_another_image_wins() -> None:
    to_first, to_second = exact("ab", 0.9, 0.3), exact("cd", 0.2, 0.8)
    found = position([to_first, to_first, to_second, exact("ef", 0.9, 0.6), exact("gh", 0.5, 0.9)])
    assert found
    assert (found.flips.share, found.flips.pairs, found.to_first) == (3 / 5, 5, pytest.approx(2 / 3))
    alike = position([exact("ab", 0.9)])
    assert alike
    assert (alike.flips.share, alike.to_first) == (0, None)


def test_pairs_that_were_asked_or_could_be_read_in_one_order_say_nothing_of_it() -> None:
    half = PairVotes("a", "b", [3, 1], [0, 0], 4, "v1")
    assert position([one_order("ab", 0.9), half]) is None


def test_bias_is_told_by_how_far_apart_the_images_truly_are() -> None:
    truth = {"a": 1.0, "b": 1.0, "c": 5.0}
    found = by_difference([exact("ab", 0.9, 0.2), exact("ac", 0.1), exact("bc", 0.1), exact("xa", 0.9, 0.2)], truth)
    assert [(row.mean, row.position.flips.share, row.position.flips.pairs) for row in found] == [(0, 1, 1), (4, 0, 2)]
