"""The paired test against the formula of Meng, Rosenthal & Rubin, and by how often it cries wolf."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from statsmodels.stats.multitest import multipletests

from trainer.evaluation.bootstrap import Interval, PairedTest, holm, paired_test
from trainer.evaluation.metrics import pearson, spearman

Array = NDArray[np.float64]


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
def test_a_clear_gain_is_told_with_its_interval(metric: str, correlation) -> None:
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
