"""What the scores of a step are rewarded for."""

from __future__ import annotations

import numpy as np

from trainer.training.reward import Ranking, Regression, regression_rewards, rewards
from trainer.voting.votes import PairVotes, labels_of

GROUP = ["a", "b", "c"]
SCORES = np.random.default_rng(0).uniform(1, 5, (3, 6))
VOTES = [PairVotes("a", "b", [3, 1], [4, 0], 0, "v"), PairVotes("c", "b", [1, 1], [2, 4], 0, "v")]


def test_ranking_takes_the_votes_of_a_groups_pairs_and_leaves_out_pairs_without() -> None:
    labels = np.array([[np.nan, 1, np.nan], [0, np.nan, 1], [np.nan, 0, np.nan]])
    found = Ranking(labels_of(VOTES), gamma=0.01).rewards(GROUP, SCORES)
    np.testing.assert_array_equal(found, rewards(SCORES, labels, 0.01))


def test_soft_labels_are_the_shares_of_the_votes_in_both_directions() -> None:
    soft = labels_of(VOTES, soft=True)
    assert soft == {("a", "b"): 7 / 8, ("b", "a"): 1 / 8, ("c", "b"): 3 / 8, ("b", "c"): 5 / 8}
    assert labels_of([PairVotes("a", "b", [0, 0], [0, 0], 8, "v")], soft=True) == {}


def test_soft_labels_of_exact_votes_know_no_tie() -> None:
    near = PairVotes("a", "b", [0.6, 0.4], [0.5, 0.5], 0, "v", by="exact", tie_margin=0.3)
    assert labels_of([near])["a", "b"] == 0.5
    assert labels_of([near], soft=True)["a", "b"] == 0.55


def test_regression_takes_each_images_mean_and_leaves_out_images_without() -> None:
    found = Regression({"a": 2.0, "c": 4.5}).rewards(GROUP, SCORES)
    np.testing.assert_array_equal(found, regression_rewards(SCORES, np.array([2.0, np.nan, 4.5])))
    assert np.isnan(found[1]).all()
