"""The whole way from a published folder and kept predictions to the metrics, against scipy on arrays of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.optimize import curve_fit
from scipy.stats import kendalltau, pearsonr, spearmanr

from tests.trainer.published import CSIQ_ROWS, PUBLISHED, SETS, csiq_names
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.benchmarks.load import load
from trainer.evaluation.evaluate import measured
from trainer.evaluation.metrics import Metrics
from trainer.evaluation.predictions import Prediction, Predictions
from trainer.settings.protocol import Protocol

Array = NDArray[np.float64]
PROTOCOL = Protocol("expected")


def of_tid(root: Path) -> dict[str, float]:
    lines = (root / "mos_with_names.txt").read_text().splitlines()
    return {name: float(mos) for mos, name in map(str.split, lines)}


def of_livec(root: Path) -> dict[str, float]:
    names = [*(f"{number}.bmp" for number in range(3, 32)), "32.jpg"]
    return dict(zip(names, np.linspace(90, 5, 37)[7:], strict=True))


TRUTH: dict[str, Callable[[Path], dict[str, float]]] = {
    "koniq10k": lambda root: pd.read_csv(root / SETS, index_col="image_name")["MOS"].to_dict(),
    "kadid10k": lambda root: pd.read_csv(root / "dmos.csv", index_col="dist_img")["dmos"].to_dict(),
    "livec": of_livec,
    "tid2013": of_tid,
    "csiq": lambda root: dict(zip(csiq_names(), (1 - dmos for *_, dmos in CSIQ_ROWS), strict=True)),
}
"""The truth about each image, higher being better, read without the loaders."""


def answers(truth: dict[str, float], sign: int) -> dict[str, float]:
    """Scores of two decimals, many alike: the truth bent, with noise; `sign` -1 is a model that has it upside down."""
    rng, values = np.random.default_rng(1), np.array(list(truth.values()))
    share = (values - values.min()) / np.ptp(values)
    scores = 3 + sign * (2 * share**3 - 1) + rng.normal(0, 0.15, len(values))
    return {name.lower(): float(np.round(score, 1)) for name, score in zip(truth, scores, strict=True)}


def keep(folder: Path, benchmark: Benchmark, said: dict[str, float], unreadable: Collection[str]) -> None:
    """Predictions as a service's answers come: in any order."""
    kept = Predictions(folder, benchmark.name)
    for id in np.random.default_rng(0).permutation(benchmark.ids):
        score = None if id in unreadable else said[Path(id).name.lower()]
        kept.add(Prediction(str(id), score, None, float(score is None), None, "v1", PROTOCOL.as_dict(), {}))


def by_scipy(x: Array, y: Array) -> Metrics:
    def curve(x: Array, b1: float, b2: float, b3: float, b4: float) -> Array:
        return (b1 - b2) / (1 + np.exp(-(x - b3) / b4)) + b2

    fitted = curve(x, *curve_fit(curve, x, y, [y.max(), y.min(), x.mean(), x.std() / 4], maxfev=10_000)[0])
    pairs = [(x[i] - x[j]) * np.sign(y[i] - y[j]) for i, j in combinations(range(len(x)), 2) if y[i] != y[j]]
    return Metrics(
        plcc=pearsonr(x, y).statistic,
        plcc_fitted=pearsonr(fitted, y).statistic,
        srcc=spearmanr(x, y).statistic,
        krcc=kendalltau(x, y).statistic,
        rmse=float(np.sqrt(np.mean((fitted - y) ** 2))),
        pairwise_accuracy=float(np.mean((1 + np.sign(pairs)) / 2)),
        n=len(x),
    )


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", TRUTH)
def test_metrics_are_scipys_of_the_published_labels(name: str, sign: int, tmp_path: Path) -> None:
    root = PUBLISHED[name][0](tmp_path / "set")
    truth, benchmark = TRUTH[name](root), load(root, "all")
    said, unreadable = answers(truth, sign), {benchmark.ids[2], benchmark.ids[9]}
    keep(tmp_path / "predictions", benchmark, said, unreadable)
    found = measured([benchmark], PROTOCOL, tmp_path / "predictions").benchmarks[name]

    left_out = {Path(id).name.lower() for id in unreadable}
    pairs = [(said[image.lower()], mos) for image, mos in truth.items() if image.lower() not in left_out]
    expected = by_scipy(*np.array(pairs).T)
    assert found.n == expected.n == len(truth) - 2
    for metric in ("plcc", "srcc", "krcc", "pairwise_accuracy"):
        assert getattr(found, metric) == pytest.approx(getattr(expected, metric), abs=1e-12)
    assert (found.plcc_fitted, found.rmse) == pytest.approx((expected.plcc_fitted, expected.rmse), rel=1e-4)
    assert sign * found.srcc > 0.7 and found.plcc_fitted > 0.7


def test_a_set_weighs_as_much_as_it_has_images_readable_or_not(tmp_path: Path) -> None:
    roots = {name: PUBLISHED[name][0](tmp_path / name) for name in ("csiq", "livec")}
    sets = [load(root) for root in roots.values()]
    for one, root in zip(sets, roots.values(), strict=True):
        keep(tmp_path / "kept", one, answers(TRUTH[one.name](root), 1), one.ids[5:25] if one.name == "livec" else ())
    found = measured(sets, PROTOCOL, tmp_path / "kept")
    of = found.benchmarks
    assert (of["csiq"].n, of["livec"].n) == (60, 10)
    assert found.weighted_plcc == pytest.approx((60 * of["csiq"].plcc + 30 * of["livec"].plcc) / 90)
