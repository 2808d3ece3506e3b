"""Metrics against scipy and against the paper's published averages."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from trainer.evaluation.metrics import fit_logistic, measure, relative_gain_percent, weighted_mean

COUNTS = {
    "koniq": 2010,
    "spaq": 2224,
    "agiqa": 2982,
    "livec": 1169,
    "kadid": 2000,
    "pipal": 4640,
    "tid": 3000,
    "csiq": 866,
}
ZERO_SHOT = dict(zip(COUNTS, (0.761, 0.853, 0.766, 0.718, 0.623, 0.444, 0.380, 0.717), strict=True))
ROUND_1 = dict(zip(COUNTS, (0.840, 0.902, 0.839, 0.847, 0.784, 0.613, 0.624, 0.827), strict=True))
ROUND_2 = dict(zip(COUNTS, (0.835, 0.903, 0.831, 0.847, 0.803, 0.649, 0.674, 0.865), strict=True))


@pytest.mark.parametrize(("row", "average"), [(ZERO_SHOT, 0.615), (ROUND_1, 0.751), (ROUND_2, 0.770)])
def test_weighted_averages_are_those_the_paper_prints(row: dict[str, float], average: float) -> None:
    assert round(weighted_mean(row, COUNTS), 3) == average


@pytest.mark.parametrize(("row", "gain"), [(ROUND_1, 27.4), (ROUND_2, 31.8)])
def test_relative_gains_are_those_the_paper_prints(row: dict[str, float], gain: float) -> None:
    assert round(relative_gain_percent(ZERO_SHOT, row, COUNTS), 1) == gain


def test_correlations_are_those_of_the_readable_predictions() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(1, 5, 50)
    predicted = np.round(truth + rng.normal(0, 0.5, 50), 1)
    predicted[7] = np.nan
    found, kept = measure(predicted, truth), np.delete(np.arange(50), 7)
    assert found.n == 49
    assert found.plcc == pytest.approx(pearsonr(predicted[kept], truth[kept]).statistic)
    assert found.srcc == pytest.approx(spearmanr(predicted[kept], truth[kept]).statistic)


def test_the_logistic_fit_straightens_a_logistic_relation() -> None:
    predicted = np.linspace(1, 5, 80)
    truth = 80 / (1 + np.exp(-(predicted - 3) / 0.3)) + 10
    np.testing.assert_allclose(fit_logistic(predicted, truth), truth, atol=1e-3)
    assert measure(predicted, truth).plcc_fitted > 0.9999 > measure(predicted, truth).plcc


def test_constant_predictions_have_no_correlation() -> None:
    with pytest.raises(ValueError, match="no correlation"):
        measure(np.full(10, 3.0), np.arange(10.0))
