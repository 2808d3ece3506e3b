"""Metrics against scipy and against their definitions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import curve_fit
from scipy.stats import kendalltau, pearsonr, somersd, spearmanr

from trainer.evaluation.metrics import FitWarning, fit_logistic, measure

Array = NDArray[np.float64]


@pytest.fixture
def scores() -> tuple[Array, Array]:
    """(60,) predictions of one decimal and opinions of 10 to 90 that bend with them: many ties in both."""
    rng = np.random.default_rng(0)
    quality = rng.uniform(1, 5, 60)
    predicted = np.round(quality + rng.normal(0, 0.5, 60), 1)
    return predicted, np.round(80 / (1 + np.exp(3 - quality)) + 10)


def test_correlations_are_scipys(scores: tuple[Array, Array]) -> None:
    found = measure(*scores)
    assert found.plcc == pytest.approx(pearsonr(*scores).statistic, abs=1e-12)
    assert found.srcc == pytest.approx(spearmanr(*scores).statistic, abs=1e-12)
    assert found.krcc == pytest.approx(kendalltau(*scores, variant="b").statistic, abs=1e-12)
    assert found.n == 60


def test_unreadable_predictions_are_left_out_and_n_tells(scores: tuple[Array, Array]) -> None:
    predicted, truth = scores[0].copy(), scores[1]
    predicted[[7, 30]] = np.nan
    assert measure(predicted, truth) == measure(np.delete(predicted, [7, 30]), np.delete(truth, [7, 30]))
    assert measure(predicted, truth).n == 58


def test_the_fit_is_scipys_of_the_same_curve_from_the_same_start(scores: tuple[Array, Array]) -> None:
    def curve(x: Array, b1: float, b2: float, b3: float, b4: float) -> Array:
        return (b1 - b2) / (1 + np.exp(-(x - b3) / b4)) + b2

    x, y = scores
    parameters, _ = curve_fit(curve, x, y, [y.max(), y.min(), x.mean(), x.std() / 4], maxfev=10_000)
    fitted = curve(x, *parameters)
    np.testing.assert_allclose(fit_logistic(x, y)(x), fitted, rtol=1e-4)
    assert measure(x, y).plcc_fitted == pytest.approx(pearsonr(fitted, y).statistic, abs=1e-6)
    assert measure(x, y).rmse == pytest.approx(np.sqrt(np.mean((fitted - y) ** 2)), abs=1e-5)


def test_the_fit_straightens_a_logistic_relation() -> None:
    predicted = np.linspace(1, 5, 80)
    truth = 80 / (1 + np.exp(-(predicted - 3) / 0.3)) + 10
    np.testing.assert_allclose(fit_logistic(predicted, truth)(predicted), truth, atol=1e-3)
    found = measure(predicted, truth)
    assert found.plcc_fitted > 0.9999 > found.plcc
    assert found.rmse < 1e-3


def test_only_the_fit_forgives_an_inverted_predictor(scores: tuple[Array, Array]) -> None:
    upright, inverted = measure(*scores), measure(-scores[0], scores[1])
    assert inverted.plcc_fitted == pytest.approx(upright.plcc_fitted, abs=1e-3)
    for name in ("plcc", "srcc", "krcc"):
        assert getattr(inverted, name) == pytest.approx(-getattr(upright, name))
    assert inverted.pairwise_accuracy == pytest.approx(1 - upright.pairwise_accuracy)


def test_a_fit_that_does_not_converge_warns_and_gives_its_best_curve() -> None:
    predicted = np.linspace(1, 5, 50)
    truth = np.exp(5 * predicted)
    assert not fit_logistic(predicted, truth).converged
    with pytest.warns(FitWarning, match="50 images"):
        found = measure(predicted, truth)
    assert found.plcc < found.plcc_fitted <= 1


@pytest.mark.parametrize("seed", range(3))
def test_pairwise_accuracy_is_that_of_the_double_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, truth = rng.integers(0, 8, 70) / 2, rng.integers(0, 30, 70) / 5
    right = [
        0.5 if predicted[i] == predicted[j] else float((predicted[i] > predicted[j]) == (truth[i] > truth[j]))
        for i, j in combinations(range(70), 2)
        if truth[i] != truth[j]
    ]
    found = measure(predicted, truth).pairwise_accuracy
    assert found == pytest.approx(np.mean(right), abs=1e-12)
    assert found == pytest.approx((1 + somersd(truth, predicted).statistic) / 2, abs=1e-12)


def test_as_many_images_as_pipal_has_are_measured_to_the_last_pair() -> None:
    truth = np.random.default_rng(0).permutation(23_200)
    predicted = np.where(truth == 0, 23_199, np.where(truth == 23_199, 0, truth))
    pairs, turned = 23_200 * 23_199 // 2, 2 * 23_198 + 1  # worst and best swapped: each is wrong against all others
    assert measure(predicted * 1.0, truth * 1.0).pairwise_accuracy == pytest.approx(1 - turned / pairs, abs=1e-12)


@pytest.mark.parametrize(
    ("predicted", "truth"),
    [(np.full(10, 3.0), np.arange(10.0)), (np.arange(10.0), np.full(10, 3.0)), (np.arange(3.0), np.arange(3.0))],
)
def test_what_does_not_vary_or_is_too_little_has_no_correlation(predicted: Array, truth: Array) -> None:
    with pytest.raises(ValueError, match="no correlation"):
        measure(predicted, truth)


def test_pyiqas_own_functions_agree(scores: tuple[Array, Array]) -> None:
    how = "pip install --no-deps --target /tmp/pyiqa pyiqa, then PYTHONPATH=/tmp/pyiqa"
    pyiqa = pytest.importorskip("pyiqa.metrics.correlation_coefficient", reason=how)
    found = measure(*scores)
    assert found.plcc == pytest.approx(pyiqa.calculate_plcc(*scores))
    assert found.srcc == pytest.approx(pyiqa.calculate_srcc(*scores))
    assert found.krcc == pytest.approx(pyiqa.calculate_krcc(*scores))
    assert found.plcc_fitted == pytest.approx(pyiqa.calculate_plcc(*scores, fit_scale="logistic_4params"), abs=1e-6)
    assert found.rmse == pytest.approx(pyiqa.calculate_rmse(*scores, fit_scale="logistic_4params"), abs=1e-5)
