"""Votes that stop once the majority of all K is as good as known."""

from __future__ import annotations

from fractions import Fraction
from math import comb, factorial

import numpy as np
import pytest

from trainer.voting.majority import change, decided, first_look

K = 32


def beta_integral(a: int, b: int) -> Fraction:
    """B(a, b) of whole numbers."""
    return Fraction(factorial(a - 1) * factorial(b - 1), factorial(a + b - 1))


def undone(first: int, second: int, left: int) -> Fraction:
    """Transcribed: the sum of the beta-binomial's terms with which `first` does not keep its majority."""
    a, b = first + 1, second + 1
    terms = (
        comb(left, won) * beta_integral(a + won, b + left - won) / beta_integral(a, b)
        for won in range(left + 1)
        if first + won <= second + left - won
    )
    return sum(terms, Fraction(0))


@pytest.mark.parametrize(
    ("more", "fewer", "left"), [(2, 0, 30), (5, 1, 26), (9, 7, 16), (16, 0, 16), (17, 0, 15), (17, 14, 1), (3, 2, 2)]
)
def test_the_probability_of_a_change_is_the_beta_binomials_tail(more: int, fewer: int, left: int) -> None:
    assert change(fewer, more, left) == pytest.approx(float(undone(more, fewer, left)), abs=1e-12)


def test_without_an_allowed_error_a_pair_ends_exactly_when_no_vote_could_change_its_majority() -> None:
    for first in range(K + 1):
        for second in range(K + 1 - first):
            left = K - first - second
            certain = left == 0 or abs(first - second) > left
            assert decided(first, second, left, error=0) == certain


@pytest.mark.parametrize("error", [0.02, 0.05, 0.1])
def test_labels_differ_from_those_of_all_votes_no_more_often_than_stated(error: float) -> None:
    rng = np.random.default_rng(0)
    votes = rng.random((4000, K)) < rng.random((4000, 1))
    stopped, asked = [], 0
    for row in votes:
        n = next(n for n in range(2, K + 1, 2) if decided(row[:n].sum(), n - row[:n].sum(), K - n, error))
        stopped.append(np.sign(2 * row[:n].sum() - n))
        asked += n
    differ = np.mean(np.array(stopped) != np.sign(2 * votes.sum(1) - K))
    assert 0 < differ < error
    assert asked < 0.5 * votes.size


def test_the_first_look_is_where_votes_all_alike_decide() -> None:
    assert [first_look(K, error) for error in (0, 0.05, 0.2)] == [18, 4, 2]
    assert [first_look(votes, 0) for votes in (1, 2, 3, 8)] == [1, 2, 2, 6]
    assert not decided(2, 0, K - 2, 0.05)
    assert decided(4, 0, K - 4, 0.05)


def test_a_model_that_always_prefers_one_position_is_asked_to_the_end() -> None:
    assert not any(decided(n // 2, n // 2, K - n, error=0.2) for n in range(2, K, 2))
