"""Bootstrap intervals against scipy's, against Fisher's formula, and by how often they hold the truth."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import bootstrap, norm, pearsonr
from statsmodels.stats.multitest import multipletests

from trainer.evaluation.bootstrap import (
    NAMES,
    Interval,
    PairedTest,
    describe,
    draws,
    holm,
    interval,
    intervals,
    paired_test,
    resample,
)
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
    with pytest.raises(ValueError, match="the same reference"):
        intervals(predicted, truth, references=["a"] * 10 + ["b"] * 10)


def test_resamples_without_a_correlation_are_left_out() -> None:
    predicted, truth = np.array([1.0, 1, 1, 1, 5]), np.arange(5.0)
    assert np.isfinite(list(intervals(predicted, truth, resamples=100).values())).all()


def test_one_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="the same reference"):
        intervals(*normal(20, 0.7), references=["a"] * 20)


def test_intervals_are_described_for_readers() -> None:
    assert describe(None) == "95% percentile bootstrap intervals, 1,000 resamples of the images"
    assert describe(["a", "a", "b"], resamples=200, level=0.9) == (
        "90% percentile bootstrap intervals, 200 resamples of the 2 references"
    )


def test_a_rank_correlation_of_what_is_constant_is_unknown() -> None:
    with np.errstate(invalid="ignore", divide="ignore"):
        assert np.isnan(spearman(np.ones(5), np.arange(5.0)))


def two_versions(n: int, gain: float, seed: int = 0) -> tuple[Array, Array, Array]:
    """Predictions of two versions and the truth, (n,) each, of a trivariate normal; they correlate with the truth at
    0.6 and 0.6 + gain, and with each other at 0.5."""
    spread = [[1, 0.5, 0.6], [0.5, 1, 0.6 + gain], [0.6, 0.6 + gain, 1]]
    drawn = np.random.default_rng(seed).multivariate_normal([0, 0, 0], spread, n)
    return drawn[:, 0], drawn[:, 1], drawn[:, 2]


def meng(first: Array, second: Array, truth: Array) -> float:
    """Two-sided p of the difference of two correlations with one variable (Meng, Rosenthal & Rubin 1992, eq. 1-3)."""
    r1, r2, between = pearson(first, truth), pearson(second, truth), pearson(first, second)
    mean_square = (r1**2 + r2**2) / 2
    f = min(1.0, (1 - between) / (2 * (1 - mean_square)))
    h = (1 - f * mean_square) / (1 - mean_square)
    z = (np.arctanh(r1) - np.arctanh(r2)) * np.sqrt((len(truth) - 3) / (2 * (1 - between) * h))
    return float(2 * norm.sf(abs(z)))


@pytest.mark.parametrize("seed", range(4))
def test_p_is_that_of_the_formula_where_the_formula_holds(seed: int) -> None:
    versions = two_versions(800, 0.02, seed)
    assert paired_test(*versions, metric="plcc").p == pytest.approx(meng(*versions), abs=0.06)


@pytest.mark.parametrize(("metric", "correlation"), [("plcc", pearson), ("srcc", spearman)])
def test_a_clear_gain_is_found_with_its_interval(metric: str, correlation) -> None:
    first, second, truth = two_versions(400, 0.2)
    found = paired_test(first, second, truth, metric=metric)
    assert found.difference == pytest.approx(correlation(second, truth) - correlation(first, truth))
    assert 0 < found.interval.low < found.difference < found.interval.high
    assert found.p == pytest.approx(2 / 2001)
    assert found.n == 400


def test_to_swap_the_versions_turns_the_sign_alone() -> None:
    first, second, truth = two_versions(150, 0.05)
    there, back = paired_test(first, second, truth, resamples=200), paired_test(second, first, truth, resamples=200)
    assert there.difference == -back.difference
    assert there.interval == pytest.approx((-back.interval.high, -back.interval.low))
    assert there.p == back.p


def test_equal_predictions_do_not_differ() -> None:
    first, _, truth = two_versions(60, 0)
    assert paired_test(first, first, truth) == PairedTest(0.0, Interval(0.0, 0.0), 1.0, 60)


def test_where_nothing_differs_one_test_of_twenty_says_otherwise() -> None:
    p = [paired_test(*two_versions(100, 0, seed), metric="plcc", resamples=200).p for seed in range(150)]
    assert 0.01 <= np.mean(np.array(p) <= 0.05) <= 0.1


def shared_luck(seed: int) -> tuple[Array, Array, Array]:
    """Two equally good versions, each off in its own way on all ten images of a reference."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=300)
    first, second = (truth + np.repeat(rng.normal(size=30), 10) + rng.normal(0, 0.3, 300) for _ in range(2))
    return first, second, truth


def test_luck_shared_by_a_references_images_is_no_difference() -> None:
    references = [str(number // 10) for number in range(300)]

    def wrong(references: list[str] | None) -> float:
        tests = [
            paired_test(*shared_luck(seed), metric="plcc", references=references, resamples=200) for seed in range(60)
        ]
        return float(np.mean([test.p <= 0.05 for test in tests]))

    assert wrong(references) <= 0.12 < wrong(None)


def test_images_that_one_version_could_not_read_are_left_out_for_both() -> None:
    first, second, truth = two_versions(80, 0.1)
    first[3], second[7] = np.nan, np.nan
    kept = np.isfinite(first) & np.isfinite(second)
    found = paired_test(first, second, truth, resamples=200)
    assert found == paired_test(first[kept], second[kept], truth[kept], resamples=200)
    assert found.n == 78


def test_several_sets_are_corrected_by_holm() -> None:
    p = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.5}
    tests = {name: PairedTest(0.1, Interval(0, 0.2), value, 100) for name, value in p.items()}
    assert holm(tests) == pytest.approx({"a": 0.04, "b": 0.09, "c": 0.09, "d": 0.5})
    assert list(holm(tests).values()) == pytest.approx(list(multipletests(list(p.values()), method="holm")[1]))
