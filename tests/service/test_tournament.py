"""The choice of pairs: connected, never twice, and better spent than by chance."""

from __future__ import annotations

import networkx
import numpy as np
import pytest
from scipy.stats import kendalltau

from service.ranking.strengths import Strengths
from service.ranking.tournament import Tournament, default_comparisons, expected_information
from tests.service.bradley_terry import Truth, play


def agreement(truth: Truth, found: Strengths) -> float:
    return float(kendalltau(truth.strengths, found.values)[0])


def test_the_order_is_found_with_a_fraction_of_the_pairs():
    """About as well as by all the pairs, of 24 images 40 % of them."""
    chosen, everything = [], []
    for seed in range(5):
        truth = Truth(24, seed)
        chosen.append(agreement(truth, play(truth, votes=4)[0]))
        everything.append(agreement(truth, truth.full(votes=4)))
    assert default_comparisons(24) < 0.4 * 24 * 23 / 2 + 1
    assert np.mean(chosen) > 0.85
    assert np.mean(chosen) > np.mean(everything) - 0.06


def test_chosen_pairs_tell_more_than_drawn_ones():
    chosen, drawn = [], []
    for seed in range(12):
        truth = Truth(24, seed, spread=2.5)
        found, rounds = play(truth, votes=4)
        pairs = truth.all_pairs()
        picked = truth.noise.permutation(len(pairs))[: sum(map(len, rounds))]
        rows = [row for place in picked for row in truth.compare(pairs[place], 4)]
        chosen.append(agreement(truth, found))
        drawn.append(agreement(truth, truth.fit(rows, 4)))
    assert np.mean(chosen) > np.mean(drawn)


def test_the_errors_of_a_tournament_cover_the_truth():
    covered = []
    for seed in range(12):
        truth = Truth(16, seed)
        found, _ = play(truth, votes=4)
        covered.append(np.abs(found.values - truth.strengths) < 2 * found.standard_errors())
    assert np.mean(covered) > 0.88


@pytest.mark.parametrize("images", [2, 3, 4, 5, 8, 13])
def test_rounds_are_matchings_of_new_pairs_and_the_opening_connects_all(images: int):
    _, rounds = play(Truth(images, seed=0), votes=None)
    for pairs in rounds:
        shown = [image for pair in pairs for image in pair]
        assert len(shown) == len(set(shown))
    played = [pair for pairs in rounds for pair in pairs]
    assert len(set(played)) == len(played) == default_comparisons(images)
    graph = networkx.Graph(played[: images - 1])
    assert networkx.is_connected(graph) and graph.number_of_nodes() == images


@pytest.mark.parametrize(("comparisons", "expected"), [(1, 1), (7, 7), (12, 12), (28, 28), (2016, 28)])
def test_the_budget_is_kept_and_ends_with_the_pairs(comparisons: int, expected: int):
    _, rounds = play(Truth(8, seed=0), None, comparisons)
    assert sum(map(len, rounds)) == expected


def test_the_same_answers_lead_to_the_same_pairs():
    assert play(Truth(12, seed=5), votes=4)[1] == play(Truth(12, seed=5), votes=4)[1]


def test_near_and_uncertain_pairs_are_asked_first():
    near_and_far = Strengths(np.array([0.0, 0.1, 4.0]), np.eye(3), 1.0)
    worth = expected_information(near_and_far)
    assert worth[0, 1] > worth[1, 2] > worth[0, 2]
    uncertain = Strengths(np.zeros(3), np.diag([1.0, 2.0, 3.0]), 1.0)
    tournament = Tournament(3, 1)
    assert tournament.next_round(uncertain) == [(1, 2)]


def test_default_budgets_are_far_below_all_pairs():
    assert [default_comparisons(images) for images in (2, 3, 8, 64)] == [1, 3, 24, 384]
