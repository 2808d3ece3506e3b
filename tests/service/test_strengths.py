"""Bradley-Terry strengths and their errors, against likelihoods maximised without the library."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from service.ranking.strengths import DRAWS, Floats, Kind, Preference, fit
from tests.service.bradley_terry import Truth

PAIR = [Preference(0, 1, 0.9, 4), Preference(1, 0, 0.2, 4)]


def likeliest(images: int, rows: list[Preference], kind: Kind) -> tuple[Floats, Floats]:
    """Strengths and their covariance, written down from the model and handed to a general optimiser."""
    draw = DRAWS[kind] * np.mean([row.weight for row in rows])

    def surprise(parameters: Floats) -> float:
        strengths, position = parameters[:-1], parameters[-1]
        total = -0.5 * draw * np.sum(log_expit(parameters) + log_expit(-parameters))
        for row in rows:
            logit = strengths[row.first] - strengths[row.second] + position
            total -= row.weight * (row.share * log_expit(logit) + (1 - row.share) * log_expit(-logit))
        return float(total)

    found = minimize(surprise, np.zeros(images + 1), method="BFGS", options={"gtol": 1e-8}).x
    drawn = expit(found)
    information = np.diag(draw * drawn * (1 - drawn))
    for row in rows:
        direction = np.zeros(images + 1)
        direction[[row.first, row.second, images]] = 1, -1, 1
        p = expit(direction @ found)
        information += row.weight * p * (1 - p) * np.outer(direction, direction)
    covariance = np.linalg.inv(information)[:images, :images]
    centre = np.eye(images) - 1 / images
    return centre @ found[:-1], centre @ covariance @ centre


@pytest.mark.parametrize(("votes", "kind"), [(4, "votes"), (None, "probabilities")])
def test_strengths_and_errors_are_those_of_the_maximum_of_the_likelihood(votes: int | None, kind: Kind):
    truth = Truth(7, seed=1)
    rows = [row for pair in truth.all_pairs()[::2] for row in truth.compare(pair, votes)]
    found = fit(7, rows, kind)
    strengths, covariance = likeliest(7, rows, kind)
    assert found.values == pytest.approx(strengths, abs=1e-4)
    assert found.covariance == pytest.approx(covariance, rel=1e-3, abs=1e-5)
    assert found.standard_errors() == pytest.approx(np.sqrt(found.dispersion * np.diag(covariance)), rel=1e-3)


def test_exact_probabilities_give_the_strengths_back():
    truth = Truth(10, seed=2, spread=1)
    assert truth.full(None).values == pytest.approx(truth.strengths, abs=0.02)


def test_two_standard_errors_cover_the_truth_as_often_as_they_should():
    covered = []
    for seed in range(40):
        truth = Truth(10, seed)
        found = truth.full(votes=8)
        covered.append(np.abs(found.values - truth.strengths) < 2 * found.standard_errors())
    assert 0.92 <= np.mean(covered) <= 0.98


def test_exceptions_to_the_model_widen_the_errors_of_probabilities():
    truth = Truth(8, seed=3, spread=1)
    rows = [row for pair in truth.all_pairs() for row in truth.compare(pair, None)]
    signs = np.random.default_rng(0).choice([-0.1, 0.1], len(rows) // 2)
    pushed = [
        Preference(row.first, row.second, float(np.clip(row.share + push, 0, 1)), 1)
        for number, sign in enumerate(signs)
        for row, push in ((rows[2 * number], sign), (rows[2 * number + 1], -sign))
    ]
    exact, wide = (fit(8, found, "probabilities").standard_errors() for found in (rows, pushed))
    assert wide.min() > 3 * exact.max()


def test_one_comparison_orders_two_images_with_an_error_only_if_it_was_a_vote():
    for kind in ("votes", "probabilities"):
        found = fit(2, PAIR, kind)
        assert found.ranks([0, 1]) == [1, 2]
        assert found.values.sum() == pytest.approx(0, abs=1e-12)
        assert (found.standard_errors() is None) == (kind == "probabilities")


def test_an_image_that_wins_always_is_finite_and_best():
    rows = [Preference(0, other, 1.0, 4) for other in (1, 2)] + [Preference(other, 0, 0.0, 4) for other in (1, 2)]
    rows += [Preference(1, 2, 1.0, 4), Preference(2, 1, 0.0, 4)]
    found = fit(3, rows, "votes")
    assert found.ranks([0, 1, 2]) == [1, 2, 3]
    assert np.abs(found.values).max() < 20
    assert np.isfinite(found.standard_errors()).all()


def test_a_bias_for_the_first_position_is_no_strength_and_equals_share_a_rank():
    rows = [Preference(*pair, 0.9, 4) for pair in ((0, 1), (1, 0), (1, 2), (2, 1), (2, 0), (0, 2))]
    found = fit(3, rows, "votes")
    assert found.values == pytest.approx(np.zeros(3), abs=1e-6)
    assert found.ranks([0, 1, 2]) == [1, 1, 1]


def test_groups_never_compared_are_known_to_be_uncertain():
    apart = PAIR + [Preference(row.first + 2, row.second + 2, row.share, row.weight) for row in PAIR]
    tied = [*apart, Preference(1, 2, 0.5, 4), Preference(2, 1, 0.5, 4)]
    wide, narrow = (fit(4, rows, "votes").standard_errors() for rows in (apart, tied))
    assert (wide > narrow).all()


@pytest.mark.parametrize("kind", ["votes", "probabilities"])
def test_a_field_of_64_without_a_single_surprise_is_ordered_and_finite(kind: Kind):
    pairs = [(i, j) for i in range(64) for j in range(64) if 0 < abs(i - j) < 4]
    found = fit(64, [Preference(i, j, float(i < j), 4) for i, j in pairs], kind)
    assert found.ranks(range(64)) == list(range(1, 65))
    assert np.isfinite(found.values).all() and np.isfinite(found.standard_errors()).all()
