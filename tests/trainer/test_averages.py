"""The averages that the paper prints, to every digit, from its figures set by set: the leaderboard's rows."""

from __future__ import annotations

import pytest

from tests.benchmarks.leaderboard import Leaderboard
from trainer.reporting.averages import relative_gain_percent, weighted_mean

BASE, ROUND_1, ROUND_2 = "paper:qwen2.5-vl-7b", "paper:evoquality-round1", "paper:evoquality-round2"


@pytest.fixture(scope="module")
def board() -> Leaderboard:
    return Leaderboard.load()


@pytest.mark.parametrize(("model", "average"), [(BASE, 0.615), (ROUND_1, 0.751), (ROUND_2, 0.770)])
def test_weighted_averages_of_plcc(board: Leaderboard, model: str, average: float) -> None:
    assert round(board.weighted(model), 3) == average


def test_weighted_average_of_srcc(board: Leaderboard) -> None:
    assert round(board.weighted(ROUND_2, "srcc"), 3) == 0.726


@pytest.mark.parametrize(("model", "gain"), [(ROUND_1, 27.4), (ROUND_2, 31.8)])
def test_weighted_means_of_the_sets_gains(board: Leaderboard, model: str, gain: float) -> None:
    assert round(board.gain_percent(BASE, model), 1) == gain


def test_the_average_itself_rises_less(board: Leaderboard) -> None:
    assert round(100 * (board.weighted(ROUND_2) / board.weighted(BASE) - 1), 1) == 25.2


def test_a_large_set_counts_more_than_a_small_one() -> None:
    assert weighted_mean({"a": 0.5, "b": 0.8}, {"a": 200, "b": 100}) == pytest.approx(0.6)
    assert relative_gain_percent({"a": 0.5, "b": 0.8}, {"a": 0.6, "b": 0.8}, {"a": 200, "b": 100}) == pytest.approx(
        40 / 3
    )
