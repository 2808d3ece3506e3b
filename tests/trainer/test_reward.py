"""The rewards against a direct transcription of the paper's equations, in plain Python and scipy."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy.stats import norm

from trainer.training.reward import Ranking, Regression, advantages, fidelity, regression_rewards, rewards, thurstone
from trainer.voting.votes import PairVotes, labels_of

GAMMA = 0.01
GROUP = ["a", "b", "c"]
SCORES = np.random.default_rng(0).uniform(1, 5, (3, 6))
VOTES = [PairVotes("a", "b", [3, 1], [4, 0], 0, "v"), PairVotes("c", "b", [1, 1], [2, 4], 0, "v")]


def transcribed(scores: list[list[float]], labels: list[list[float]]) -> list[list[float]]:
    """Eq. 2-4 of arXiv 2509.25787, term by term."""
    result = []
    for i, own in enumerate(scores):
        partners = [j for j in range(len(scores)) if not math.isnan(labels[i][j])]
        row = []
        for q in own:
            total = 0.0
            for j in partners:
                spread = statistics.variance(own) + statistics.variance(scores[j]) + GAMMA
                p = norm.cdf((q - statistics.mean(scores[j])) / math.sqrt(spread))
                total += math.sqrt(labels[i][j] * p) + math.sqrt((1 - labels[i][j]) * (1 - p))
            row.append(total / len(partners))
        result.append(row)
    return result


def batch(images: int, answers: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.choice([0.0, 0.5, 1.0], (images, images)), 1)
    labels = upper + np.tril(1 - upper.T, -1)
    np.fill_diagonal(labels, np.nan)
    return rng.uniform(1, 5, (images, answers)), labels


@pytest.mark.parametrize("seed", range(5))
def test_rewards_equal_the_transcribed_equations(seed: int) -> None:
    scores, labels = batch(6, 8, seed)
    labels[0, 3] = labels[3, 0] = np.nan
    np.testing.assert_allclose(
        rewards(scores, labels, GAMMA), transcribed(scores.tolist(), labels.tolist()), rtol=1e-12
    )


def test_an_unreadable_answer_earns_nothing_and_has_no_say_in_the_others() -> None:
    scores, labels = batch(4, 6, 0)
    scores[1, 2] = np.nan
    found = rewards(scores, labels, GAMMA)
    assert found[1, 2] == 0 < np.delete(found[1], 2).min()
    without = np.delete(scores[1], 2)
    np.testing.assert_allclose(thurstone(scores[0], scores[1], GAMMA), thurstone(scores[0], without, GAMMA))


def test_an_image_with_one_readable_answer_leaves_its_partners_rewards_alone() -> None:
    scores, labels = batch(4, 6, 1)
    scores[3, 1:] = np.nan
    found = rewards(scores, labels, GAMMA)
    assert found[3, 0] > 0 and not found[3, 1:].any()
    np.testing.assert_allclose(found[:3], rewards(scores[:3], labels[:3, :3], GAMMA))


@pytest.mark.parametrize("unreadable", [1, 2, 15])
@pytest.mark.parametrize("normalise", [True, False])
def test_confident_answers_unlearn_the_unreadable_ones_among_them_and_one_readable_is_learnt(
    unreadable: int, normalise: bool
) -> None:
    scores = np.full((3, 16), 2.0)
    scores[:, :unreadable] = np.nan
    _, labels = batch(3, 16, 0)
    for reward in (
        rewards(scores, labels, GAMMA),
        rewards(scores, np.full((3, 3), np.nan), GAMMA),
        regression_rewards(scores, np.array([2.0, 5.0, np.nan])),
    ):
        found = advantages(reward, normalise=normalise)
        assert (found[:, :unreadable] < 0).all() and (found[:, unreadable:] > 0).all()


def test_no_readable_answer_earns_less_than_an_unreadable_one() -> None:
    random = np.random.default_rng(0)
    for seed in range(50):
        scores, labels = batch(4, 5, seed)
        scores[random.random(scores.shape) < 0.3] = np.nan
        scores = np.where(random.random(scores.shape) < 0.3, np.round(scores), scores)
        found = rewards(scores, labels, GAMMA)
        assert (found[np.isnan(scores)] == 0).all() and (found[np.isfinite(scores)] > 0).all()


def test_rewarded_scores_order_as_the_labels_do() -> None:
    scores = np.array([[1.0, 2.0, 4.5], [3.0, 3.1, 2.9]])
    better = np.array([[np.nan, 1.0], [0.0, np.nan]])
    assert list(np.argsort(rewards(scores, better, GAMMA)[0])) == [0, 1, 2]


@pytest.mark.parametrize(("label", "probability", "expected"), [(1, 1, 1), (0, 0, 1), (1, 0, 0), (0.5, 0.5, 1)])
def test_fidelity_is_one_where_label_and_probability_agree(label: float, probability: float, expected: float) -> None:
    assert fidelity(label, np.array([probability]))[0] == pytest.approx(expected)


def test_advantages_are_the_standardised_rewards_of_each_group() -> None:
    reward = np.random.default_rng(0).uniform(size=(3, 8))
    expected = [[(r - statistics.mean(row)) / (statistics.stdev(row) + 0.01) for r in row] for row in reward.tolist()]
    np.testing.assert_allclose(advantages(reward), expected, rtol=1e-12)
    centred = advantages(reward, normalise=False)
    np.testing.assert_allclose(centred, reward - reward.mean(1, keepdims=True))


def test_groups_without_spread_carry_no_signal() -> None:
    found = advantages(np.array([[0.7, 0.7, 0.7], [0.1, 0.2, 0.3]]))
    assert (found[0] == 0).all()
    assert found[1, 2] > 0


def test_a_spread_of_noise_is_not_blown_up_to_full_advantages() -> None:
    reward = np.full((1, 16), 0.8)
    reward[0, 0] += 0.0004
    assert 0 < np.abs(advantages(reward)).max() < 0.05


def test_masked_answers_have_no_advantage_and_no_say_in_that_of_the_others() -> None:
    reward = np.array([[0.2, 0.9, np.nan, 0.4], [np.nan] * 4, [0.5, np.nan, np.nan, np.nan]])
    found = advantages(reward)
    np.testing.assert_allclose(found[0, [0, 1, 3]], advantages(reward[:1, [0, 1, 3]])[0])
    np.testing.assert_array_equal(np.isnan(found), np.isnan(reward))
    assert found[2, 0] == 0


def test_the_ablations_reward_is_one_at_the_mean_score_and_falls_with_the_distance_to_it() -> None:
    scores = np.array([[1.0, 2.5, 5.0], [3.0, np.nan, 4.0], [np.nan] * 3, [2.0, 3.0, 4.0]])
    found = regression_rewards(scores, np.array([2.5, 4.0, 3.0, np.nan]))
    np.testing.assert_allclose(found[0], [0.625, 1, 0.375])
    np.testing.assert_allclose(found[1], [0.75, 0, 1], err_msg="an unreadable answer earns nothing")
    assert not advantages(found)[2:].any(), "no readable score or no target: no part in the update"


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
    assert np.ptp(found[1]) == 0
