"""Bootstrap intervals against scipy's, against Fisher's formula, and by how often they hold the truth."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import bootstrap, pearsonr

from trainer.evaluation.bootstrap import NAMES, draws, interval, intervals, kind, resample
from trainer.evaluation.metrics import measure, pearson, spearman

Array = NDArray[np.float64]


def normal(n: int, correlation: float, seed: int = 0) -> tuple[Array, Array]:
    """Predictions and truth, (n,) each, of a bivariate normal distribution."""
    drawn = np.random.default_rng(seed).multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], n)
    return drawn[:, 0], drawn[:, 1]


def test_every_metric_has_an_interval_around_it() -> None:
    predicted, truth = normal(80, 0.7)
    found, values = intervals(predicted, truth, resamples=200), asdict(measure(predicted, truth))
    assert list(found) == NAMES == list(values)[:-1]
    for name, (low, high) in found.items():
        assert low < values[name] < high


def test_the_same_seed_gives_the_same_intervals() -> None:
    predicted, truth = normal(40, 0.7)
    assert intervals(predicted, truth, resamples=50, seed=3) == intervals(predicted, truth, resamples=50, seed=3)
    assert intervals(predicted, truth, resamples=50, seed=3) != intervals(predicted, truth, resamples=50, seed=4)


def test_they_are_scipys_percentile_intervals() -> None:
    predicted, truth = normal(60, 0.6)
    expected = bootstrap(
        (predicted, truth), lambda x, y: pearsonr(x, y).statistic, paired=True, vectorized=False, method="percentile",
        n_resamples=300, confidence_level=0.9, rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    found = intervals(predicted, truth, resamples=300, level=0.9, seed=5)
    assert found["plcc"] == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("correlation", [0.3, 0.8])
def test_they_are_near_fishers_where_his_formula_holds(correlation: float) -> None:
    predicted, truth = normal(600, correlation)
    middle, reach = np.arctanh(measure(predicted, truth).plcc), 1.96 / np.sqrt(600 - 3)
    assert intervals(predicted, truth, resamples=300)["plcc"] == pytest.approx(
        np.tanh([middle - reach, middle + reach]), abs=0.02
    )


def test_nineteen_of_twenty_hold_the_true_correlation() -> None:
    def holds(seed: int) -> bool:
        x, y = normal(100, 0.7, seed)
        found = resample(lambda rows: pearson(x[rows], y[rows]), 100, None, resamples=200, seed=seed)
        low, high = interval(found, 0.95)
        return low <= 0.7 <= high

    assert 0.9 <= np.mean([holds(seed) for seed in range(120)]) <= 0.99


def test_copies_of_the_same_images_tell_nothing_new_where_references_are_resampled() -> None:
    predicted, truth = normal(50, 0.7)
    references = [f"{number:02d}" for number in range(50)] * 4
    copied = intervals(np.tile(predicted, 4), np.tile(truth, 4), references=references, resamples=100)
    for name in ("plcc", "srcc"):
        assert copied[name] == pytest.approx(intervals(predicted, truth, resamples=100)[name], abs=1e-9)


def test_references_widen_intervals_where_their_images_resemble_each_other() -> None:
    rng = np.random.default_rng(0)
    names = [str(number) for number in range(20) for _ in range(12)]
    truth = rng.normal(size=240)
    predicted = truth + np.repeat(rng.normal(0, 1, 20), 12) + rng.normal(0, 0.2, 240)
    (low, high), (narrow_low, narrow_high) = (
        intervals(predicted, truth, references=references, resamples=100)["srcc"] for references in (names, None)
    )
    assert high - low > 1.3 * (narrow_high - narrow_low)


def test_the_truth_of_unreadable_images_does_not_matter() -> None:
    predicted, truth = normal(60, 0.7)
    references = [str(number // 3) for number in range(60)]
    predicted[[0, 1, 2, 30]] = np.nan
    other = np.where(np.isfinite(predicted), truth, 1000)
    found = intervals(predicted, truth, references=references, resamples=50)
    assert np.isfinite(list(found.values())).all()
    assert found == intervals(predicted, other, references=references, resamples=50)


def test_two_versions_are_drawn_on_the_same_images_whatever_one_of_them_could_read() -> None:
    predicted, truth = normal(40, 0.7)
    part = np.where(np.arange(40) == 7, np.nan, predicted)
    whole, partly = (draws(values, truth, resamples=200) for values in (predicted, part))
    same = np.isclose(whole, partly, rtol=1e-3).all(axis=0)
    assert 0.2 < same.mean() < 0.55  # a resample misses one image of many with a probability of 1/e
    assert np.corrcoef(whole[0], partly[0])[0, 1] > 0.8


def test_a_single_reference_that_can_be_read_is_refused() -> None:
    predicted, truth = normal(20, 0.7)
    predicted[10:] = np.nan
    with pytest.raises(ValueError, match="one reference"):
        intervals(predicted, truth, references=["a"] * 10 + ["b"] * 10)


def test_resamples_without_a_correlation_are_left_out() -> None:
    predicted, truth = np.array([1.0, 1, 1, 1, 5]), np.arange(5.0)
    assert np.isfinite(list(intervals(predicted, truth, resamples=100).values())).all()


def test_one_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="one reference"):
        intervals(*normal(20, 0.7), references=["a"] * 20)


def test_their_kind_can_be_told() -> None:
    assert kind(None) == "95% percentile bootstrap intervals, 1,000 resamples of the images"
    assert kind(["a", "a", "b"], resamples=200, level=0.9) == (
        "90% percentile bootstrap intervals, 200 resamples of the 2 references"
    )


def test_a_rank_correlation_of_what_is_constant_is_unknown() -> None:
    with np.errstate(invalid="ignore", divide="ignore"):
        assert np.isnan(spearman(np.ones(5), np.arange(5.0)))
