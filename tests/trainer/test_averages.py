"""Averages over benchmarks against the paper's published ones."""

from __future__ import annotations

import pytest

from trainer.evaluation.averages import relative_gain_percent, weighted_mean

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
