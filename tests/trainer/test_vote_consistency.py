"""Cycles among triples, against counting them one by one and against Kendall and Babington Smith's formula."""

from __future__ import annotations

from itertools import combinations, permutations
from math import comb

import numpy as np
import pytest

from tests.trainer.votes import exact, one_order
from trainer.evaluation.pseudo_labels.consistency import (
    Cycles,
    consistence,
    cycles,
    position_bias,
    position_by_difference,
    zeta,
)
from trainer.voting.votes import PairVotes, labels_of

LETTERS = "abcdefghijk"


def drawn(images: str, seed: int, labels: tuple[float, ...] = (0, 1)) -> list[PairVotes]:
    """Random labels of all pairs."""
    rng = np.random.default_rng(seed)
    return [exact(one + two, float(rng.choice(labels))) for one, two in combinations(images, 2)]


def counted(votes: list[PairVotes]) -> Cycles:
    """One triple after another."""
    labels = labels_of(votes)
    images = sorted({image for pair in labels for image in pair})
    triples = [t for t in combinations(images, 3) if all(pair in labels for pair in combinations(t, 2))]
    decided = [t for t in triples if all(labels[pair] != 0.5 for pair in combinations(t, 2))]
    circular = [
        t for t in decided if any(labels[a, b] == labels[b, c] == labels[c, a] == 1 for a, b, c in permutations(t))
    ]
    return Cycles(len(triples), len(decided), len(circular))


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_looking_at_every_triple(seed: int) -> None:
    votes = drawn(LETTERS, seed, (0, 0.5, 1))
    rng = np.random.default_rng(seed)
    some = [vote for vote in votes if rng.random() < 0.7]
    assert cycles(some) == counted(some)
    assert 0 < cycles(some).circular < cycles(some).decided < cycles(some).triples < comb(11, 3)


@pytest.mark.parametrize("images", [LETTERS, LETTERS[:10]])
def test_a_complete_group_has_the_cycles_that_its_numbers_of_wins_tell(images: str) -> None:
    votes = drawn(images, seed=3)
    labels = labels_of(votes)
    wins = [int(sum(labels[one, two] for two in images if two != one)) for one in images]
    expected = comb(len(images), 3) - sum(comb(won, 2) for won in wins)
    assert cycles(votes).circular == expected
    n = len(images)
    most = (n**3 - n) / 24 if n % 2 else (n**3 - 4 * n) / 24
    assert consistence(votes, [list(images)]) == pytest.approx(1 - expected / most)


def test_coins_make_cycles_of_a_quarter_and_an_order_makes_none() -> None:
    shares = [cycles(drawn(LETTERS, seed)).share for seed in range(200)]
    assert np.mean(shares) == pytest.approx(0.25, abs=0.01)
    ordered = [exact(one + two, 1.0) for one, two in combinations(LETTERS, 2)]
    assert (cycles(ordered).share, consistence(ordered, [list(LETTERS)])) == (0, 1)


def test_the_most_circular_groups_have_no_consistence() -> None:
    assert zeta([1, 1, 1]) == 0
    assert zeta([2, 2, 1, 1]) == 0
    assert zeta([2] * 5) == 0


def test_a_tie_and_a_pair_that_nobody_asked_about_make_no_cycle() -> None:
    circle = [exact("ab", 0.9), exact("bc", 0.9), exact("ac", 0.4, tie_margin=0.3)]
    assert cycles(circle) == Cycles(1, 0, 0)
    assert cycles(circle[:2]) == Cycles(0, 0, 0)
    assert consistence(circle, [["a", "b", "c"]]) is None


def test_the_preference_for_the_first_position_is_the_mean_of_both_orders() -> None:
    found = position_bias([exact("ab", 0.9, 0.3), exact("cd", 0.6, 0.6)])
    assert found
    assert found.shown_first.share == pytest.approx(((0.9 + 0.7) / 2 + 0.5) / 2)


def test_orders_contradict_each_other_where_another_image_wins() -> None:
    to_first, to_second = exact("ab", 0.9, 0.3), exact("cd", 0.2, 0.8)
    found = position_bias([to_first, to_first, to_second, exact("ef", 0.9, 0.6), exact("gh", 0.5, 0.9)])
    assert found
    assert (found.flips.share, found.flips.pairs, found.to_first) == (3 / 5, 5, pytest.approx(2 / 3))
    alike = position_bias([exact("ab", 0.9)])
    assert alike
    assert (alike.flips.share, alike.to_first) == (0, None)


def test_pairs_that_were_asked_or_could_be_read_in_one_order_say_nothing_of_it() -> None:
    half = PairVotes("a", "b", [3, 1], [0, 0], 4, "v1")
    assert position_bias([one_order("ab", 0.9), half]) is None


def test_bias_is_given_by_true_difference() -> None:
    truth = {"a": 1.0, "b": 1.0, "c": 5.0}
    found = position_by_difference(
        [exact("ab", 0.9, 0.2), exact("ac", 0.1), exact("bc", 0.1), exact("xa", 0.9, 0.2)], truth
    )
    assert [(row.mean, row.position.flips.share, row.position.flips.pairs) for row in found] == [(0, 1, 1), (4, 0, 2)]
