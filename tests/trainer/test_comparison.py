"""Several models compared: tables, the page, and what the command makes of a folder of predictions."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import sync_playwright
from rich.console import Console

from tests.service.conftest import picture
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.bootstrap import Interval, PairedTest, holm
from trainer.evaluation.comparison.comparison import AVERAGED, Bootstrap, Comparison, compare
from trainer.evaluation.comparison.page import worst
from trainer.evaluation.comparison.run import write
from trainer.evaluation.comparison.tables import show
from trainer.evaluation.evaluate import Evaluation
from trainer.evaluation.metrics import measure
from trainer.evaluation.predictions import Prediction
from trainer.reporting.averages import relative_gain_percent
from trainer.settings.protocol import Protocol

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SIZES = {"<b>blur</b>": 60, "noise": 30, "tone": 40}
NOISE = {"base": 1.5, "better": 0.3}
PROTOCOL = Protocol("expected")


def benchmark(folder: Path, name: str, size: int) -> Benchmark:
    """Grey pictures whose quality is their number."""
    (folder / "images").mkdir(parents=True)
    for number in range(size):
        (folder / "images" / f"{number}.png").write_bytes(picture(4 * number % 255))
    references = [f"r{number % 10}" for number in range(size)]
    ids = [f"images/{number}.png" for number in range(size)]
    return Benchmark(name, folder, ids, np.linspace(1, 5, size), references, ["2 images missing: a.png, b.png"])


def evaluation(benchmarks: list[Benchmark], noise: float, version: str) -> Evaluation:
    """Scores that are the truth but for noise; the service refused the last picture of each set."""
    rng = np.random.default_rng(3)
    found = {}
    for one in benchmarks:
        values = one.mos + rng.normal(0, noise, len(one.mos))
        rows = [
            Prediction(image, float(value), 0.1, 0.01, None, version, PROTOCOL.as_dict(), {"profile": "plain"})
            for image, value in zip(one.ids, values, strict=True)
        ]
        refused = Prediction(one.ids[-1], None, None, 1.0, "422 <i>", version, PROTOCOL.as_dict(), {"profile": "plain"})
        found[one.name] = [*rows[:-1], refused]
    metrics = {
        one.name: measure(np.array([row.score or np.nan for row in found[one.name]]), one.mos) for one in benchmarks
    }
    return Evaluation(version, PROTOCOL, {"profile": "plain"}, metrics, found)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("sets")
    sets = [benchmark(folder / str(number), *named) for number, named in enumerate(SIZES.items())]
    models = {name: evaluation(sets, noise, f"v-{name}") for name, noise in NOISE.items()}
    return compare(sets, models, Bootstrap(resamples=200))


@pytest.fixture(scope="module")
def out(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    write(comparison, folder)
    return folder


def test_intervals_hold_their_metrics_and_the_better_model_is_found(comparison: Comparison) -> None:
    for (model, name), found in comparison.intervals.items():
        metrics = comparison.evaluations[model].benchmarks[name]
        assert found["srcc"].low <= metrics.srcc <= found["srcc"].high
    assert set(comparison.tests) == {("better", name) for name in SIZES}
    for cell, test in comparison.tests.items():
        assert test.difference > 0
        assert test.p <= comparison.corrected[cell] < 0.05


def test_averages_are_weighted_by_the_benchmarks_sizes(comparison: Comparison) -> None:
    plcc = {name: metrics.plcc for name, metrics in comparison.evaluations["better"].benchmarks.items()}
    by_hand = sum(plcc[name] * size for name, size in SIZES.items()) / sum(SIZES.values())
    assert comparison.weighted("better", "plcc") == pytest.approx(by_hand)
    base = {name: metrics.plcc for name, metrics in comparison.evaluations["base"].benchmarks.items()}
    assert comparison.gain_percent("better") == pytest.approx(relative_gain_percent(base, plcc, SIZES))


def test_the_interval_of_an_average_is_that_of_sets_resampled_each_by_itself(comparison: Comparison) -> None:
    """The variance of a weighted mean of independent figures is the sum of theirs, by squared weights."""
    shares = {name: size / sum(SIZES.values()) for name, size in SIZES.items()}
    spread = np.sqrt(sum((shares[name] * comparison.draws["base", name][2].std()) ** 2 for name in SIZES))
    low, high = comparison.weighted_interval("base", "srcc")
    assert low < comparison.weighted("base", "srcc") < high
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.25)


def test_a_gain_is_drawn_of_both_models_on_the_same_images(comparison: Comparison) -> None:
    first, second = NOISE
    drawn = [
        relative_gain_percent(
            {name: comparison.draws[first, name][0][number] for name in SIZES},
            {name: comparison.draws[second, name][0][number] for name in SIZES},
            SIZES,
        )
        for number in range(200)
    ]
    assert comparison.gain_interval("better") == pytest.approx(np.quantile(drawn, [0.025, 0.975]))
    low, high = comparison.gain_interval("better")
    assert low < comparison.gain_percent("better") < high
    paired = [np.corrcoef(*(comparison.draws[model, name][0] for model in NOISE))[0, 1] for name in SIZES]
    assert min(paired) > 0.2


def test_sets_of_one_size_are_drawn_independently(tmp_path: Path) -> None:
    sets = [benchmark(tmp_path / name, name, 40) for name in ("one", "other")]
    found = compare(sets, {"base": evaluation(sets, 1.0, "v")}, Bootstrap(resamples=300))
    with_alone = compare(sets[:1], {"base": evaluation(sets, 1.0, "v")}, Bootstrap(resamples=300))
    assert abs(np.corrcoef(found.draws["base", "one"][0], found.draws["base", "other"][0])[0, 1]) < 0.3
    # The fits run in another process there, so they may differ by their tolerance.
    np.testing.assert_allclose(found.draws["base", "one"], with_alone.draws["base", "one"], atol=1e-3)


@pytest.mark.parametrize("tests", [1, 8, 32, 200])
def test_the_smallest_p_is_significant_however_many_tests_there_are(tests: int) -> None:
    smallest = PairedTest(0.1, Interval(0, 0.2), 2 / (Bootstrap(resamples=10).resamples_of_tests(tests) + 1), 100)
    assert max(holm(dict.fromkeys(range(tests), smallest)).values()) < 0.05 / 3
    assert Bootstrap(resamples=10**6).resamples_of_tests(tests) == 10**6


def test_over_a_baseline_that_orders_a_set_the_wrong_way_round_there_is_no_gain(
    comparison: Comparison, tmp_path: Path
) -> None:
    sets = comparison.benchmarks
    turned = evaluation([replace(one, mos=-one.mos) for one in sets], 0.1, "v-turned")
    upside_down = {name: measure(turned.scores(name), one.mos) for name, one in zip(SIZES, sets, strict=True)}
    models = {"turned": replace(turned, benchmarks=upside_down), "better": comparison.evaluations["better"]}
    found = compare(sets, models, Bootstrap(resamples=50))
    assert found.gain_percent("better") is None and found.gain_interval("better") is None
    write(found, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["models"]["better"]["relative_gain_percent"] is None


def test_of_a_single_reference_nothing_is_drawn_and_a_note_says_so(tmp_path: Path) -> None:
    one = replace(benchmark(tmp_path / "set", "one", 20), references=["same"] * 20)
    models = {name: evaluation([one], noise, f"v-{name}") for name, noise in NOISE.items()}
    found = compare([one], models, Bootstrap(resamples=50))
    assert found.weighted_interval("better", "plcc") is None and not found.tests
    assert "no intervals or test for better: all images have the same reference" in found.notes["one"][-1]
    write(found, tmp_path / "out")
    said = shown(found)
    assert "all images have the same reference" in said
    assert "one: 1 images without a score of better, 1 refused by the service" in said


def test_a_model_alone_is_not_the_best_of_anything(tmp_path: Path) -> None:
    one = benchmark(tmp_path / "set", "one", 20)
    write(compare([one], {"base": evaluation([one], 1.0, "v")}, Bootstrap(resamples=50)), tmp_path / "out")
    assert "textbf" not in (tmp_path / "out" / "table.tex").read_text()


def test_the_markdown_table_has_a_row_a_metric_and_model(comparison: Comparison, out: Path) -> None:
    rows = [re.split(r"\s*\|\s*", line)[1:-1] for line in (out / "table.md").read_text().splitlines() if "|" in line]
    assert rows[0] == ["metric", "model", *SIZES, "weighted"]
    values = [*comparison.values("better", "srcc").values(), comparison.weighted("better", "srcc")]
    assert ["SRCC", "better", *(f"{value:.3f}" for value in values)] in rows


def test_the_latex_table_is_booktabs_and_bolds_the_best(comparison: Comparison, out: Path) -> None:
    text = (out / "table.tex").read_text()
    assert re.search(r"\\toprule(.|\n)*\\midrule(.|\n)*\\bottomrule", text)
    bold = re.findall(r"\\textbf\{([\d.]+)\}", text)
    assert len(bold) == len(AVERAGED) * (len(SIZES) + 1)
    assert f"{comparison.values('better', 'plcc')['noise']:.3f}" in bold


def test_csv_and_json_hold_every_figure(comparison: Comparison, out: Path) -> None:
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    kept = json.loads((out / "results.json").read_text())["models"]
    assert len(rows) == len(SIZES) * len(NOISE)
    for row in rows:
        metrics = comparison.evaluations[row["model"]].benchmarks[row["benchmark"]]
        assert float(row["krcc"]) == metrics.krcc == kept[row["model"]]["benchmarks"][row["benchmark"]]["krcc"]
        assert float(row["srcc_low"]) == kept[row["model"]]["intervals"][row["benchmark"]]["srcc"][0]


def shown(comparison: Comparison) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    show(comparison, console)
    return console.export_text()


def test_the_terminal_shows_every_model_and_its_gain(comparison: Comparison) -> None:
    said, reach = shown(comparison), comparison.gain_interval("better")
    gain = f"{comparison.gain_percent('better'):+.1f} % ({reach.low:+.1f} % to {reach.high:+.1f} %)"
    assert f"better: weighted relative PLCC gain over base {gain}" in said
    for metrics in comparison.evaluations["better"].benchmarks.values():
        assert f"{metrics.plcc:.3f}" in said
    assert said.count("2 images missing: a.png, b.png") == len(SIZES)


def test_the_worst_misses_are_those_farthest_from_what_people_said(comparison: Comparison) -> None:
    one, found = comparison.benchmarks[1], comparison.evaluations["base"]
    misses = worst(one, found)
    distances = [abs(miss.fitted - miss.mos) for miss in misses]
    assert distances == sorted(distances, reverse=True)
    assert all(miss.picture and miss.picture.startswith("data:image/webp") for miss in misses)
    assert one.ids[-1] not in {miss.id for miss in misses}


def test_the_page_holds_everything_itself(comparison: Comparison, out: Path) -> None:
    page = (out / "index.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == []
    assert "<link" not in page and "@import" not in page and "<script" not in page
    assert "<b>blur</b>" not in page and "422 <i>" not in page
    assert page.count("<svg") == 2 + len(SIZES) * len(NOISE)
    assert page.count("2 images missing: a.png, b.png") == len(SIZES)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)")
@pytest.mark.parametrize("width", [1200, 360])
def test_a_browser_shows_the_page_without_a_complaint(out: Path, width: int) -> None:
    said: list[str] = []
    flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.on("console", lambda message: said.append(message.text))
        page.goto((out / "index.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator(".misses img").count() == 6 * len(SIZES) * len(NOISE)
    assert said == []
