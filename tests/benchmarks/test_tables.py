"""The committed results, and the READMEs' tables made from them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from pydantic import ValidationError

from tests.benchmarks import tables
from tests.benchmarks.leaderboard import Leaderboard, Row, demo_models, demo_rows, demo_summary
from tests.benchmarks.markdown import fill, places
from tests.benchmarks.serving.__main__ import BesideRollouts, _summary
from tests.benchmarks.serving.sides import Measurement
from trainer.evaluation.metrics import measure
from trainer.files import read_json, write_json
from trainer.reporting.averages import relative_gain_percent, weighted_mean
from trainer.settings.evolve import EvolveSettings

REPOSITORY = Path(__file__).parents[2]
PAPERS_SETS = ["koniq10k", "spaq", "agiqa3k", "livec", "kadid10k", "pipal", "tid2013", "csiq"]
BASE, ROUND_1, ROUND_2 = "paper:qwen2.5-vl-7b", "paper:evoquality-round1", "paper:evoquality-round2"


def row(**changes: Any) -> Row:
    known = {
        "model": "mine",
        "version": "v1",
        "benchmark": "csiq",
        "n": 866,
        "plcc": 0.7,
        "plcc_fitted": 0.71,
        "srcc": 0.69,
        "krcc": 0.5,
        "rmse": 0.2,
        "source": "by hand",
    }
    return Row(**{**known, **changes})


def test_the_committed_file_holds_the_papers_rows_and_the_demos() -> None:
    board = Leaderboard.load()
    for model in ("paper:qwen2.5-vl-7b", "paper:evoquality-round1", "paper:evoquality-round2"):
        assert list(board.of(model)) == PAPERS_SETS
    demos = {model: board.of(model) for model in ("demo:base", "demo:round1", "demo:round2")}
    assert [len(sets) for sets in demos.values()] == [7, 7, 7]
    assert all(None not in one.model_dump().values() for sets in demos.values() for one in sets.values())
    assert len({one.version for sets in demos.values() for one in sets.values()}) == 3


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    board = Leaderboard(rows=[row(), row(benchmark="tid2013", krcc=None)])
    board.save(tmp_path / "board.json")
    assert Leaderboard.load(tmp_path / "board.json") == board
    assert set(read_json(tmp_path / "board.json")["rows"][0]) == {
        "model",
        "version",
        "benchmark",
        "n",
        "plcc",
        "plcc_fitted",
        "srcc",
        "krcc",
        "rmse",
        "source",
    }


def test_a_demo_takes_the_place_of_the_one_before_and_leaves_nothing_of_it() -> None:
    board = Leaderboard(rows=[row(), *(row(model=f"demo:{name}") for name in ("base", "round1", "round2", "round3"))])
    found = board.with_demo([row(model="demo:base", plcc=0.8), row(model="demo:round1", plcc=0.9)])
    assert [(one.model, one.plcc) for one in found.rows] == [("mine", 0.7), ("demo:base", 0.8), ("demo:round1", 0.9)]


@pytest.mark.parametrize("changes", [{"plcc": 1.2}, {"rmse": -1}, {"n": 0}, {"source": ""}, {"accuracy": 0.9}])
def test_impossible_rows_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        row(**changes)


@pytest.mark.parametrize("text", ['{"rows": [', '{"rows": [{"model": "mine"}]}', "[]"])
def test_a_file_that_is_no_leaderboard_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "board.json").write_text(text)
    with pytest.raises(ValueError, match=r"board\.json is not a leaderboard"):
        Leaderboard.load(tmp_path / "board.json")


def test_two_rows_for_one_benchmark_are_refused() -> None:
    with pytest.raises(ValidationError, match="two rows"):
        Leaderboard(rows=[row(), row(version="v2")])


def test_the_demos_rows_are_those_of_its_evaluations(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found = measure(rng.normal(size=30), rng.normal(size=30))
    written = {name: getattr(found, name) for name in found.__slots__}
    write_json(tmp_path / "settings.json", {"seed": 4, "policy": "full"})
    for number in (0, 10, 9):
        evaluation = {"version": f"v{number}", "benchmarks": {"blur": written}}
        write_json(tmp_path / "evaluations" / f"round-{number}.json", evaluation)
    with pytest.raises(ValueError, match="is not a finished demo run"):
        demo_rows(tmp_path)
    write_json(tmp_path / "seconds.json", {"total": 300})
    rows = demo_rows(tmp_path)
    assert [(one.model, one.version) for one in rows] == [
        ("demo:base", "v0"),
        ("demo:round9", "v9"),
        ("demo:round10", "v10"),
    ]
    base = rows[0]
    assert (base.n, base.plcc, base.krcc, base.rmse) == (30, found.plcc, found.krcc, found.rmse)
    assert base.source == "python -m trainer.demo.run --seed 4 --policy full"
    board = Leaderboard.load().with_demo(rows)
    assert list(demo_models(board)) == ["base", "round 9", "round 10"]


def test_a_folder_without_a_demo_is_refused_with_what_to_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.leaderboard", "--run", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "run `make demo` first" in " ".join(ended.stderr.split())


def test_the_demos_summary_is_taken_from_its_report(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no report with audited votes"):
        demo_summary(tmp_path)
    accuracy = {"label": None, "majority": None, "calibration": {"error": 0.1, "rows": [1]}, "by_margin": [1]}
    empty = dict.fromkeys(("pairs", "votes", "ties", "unreadable", "cycles", "position", "changes"))
    seen = {"requests": 7, "failed": 1, "mixed_version_answers": 2, "p50_ms": 3.0}
    report = {
        "rounds": [{"round": 0}, {"round": 1, "vote": {**empty, "accuracy": accuracy}}, {"round": 2, "vote": empty}],
        "traffic": seen,
        "swaps": [{"round": 1, "version": "v2", "blackout_ms": 164.0}],
        "seconds_total": 269.0,
    }
    write_json(tmp_path / "report.json", report)
    found = demo_summary(tmp_path)
    assert found["traffic"] == {"requests": 7, "failed": 1, "mixed_version_answers": 2}
    assert (found["blackout_ms"], list(found["votes"])) == ([164.0], ["round 1"])
    assert found["votes"]["round 1"]["accuracy"]["calibration"] == {"error": 0.1}


@pytest.mark.parametrize("readme", tables.READMES, ids=str)
def test_every_place_in_a_readme_has_a_table(readme: Path) -> None:
    text = (REPOSITORY / readme).read_text() if (REPOSITORY / readme).exists() else ""
    assert set(places(text)) <= set(tables.tables())
    assert max(Counter(places(text)).values(), default=1) == 1


@pytest.mark.parametrize("name", tables.tables())
def test_every_table_is_made_of_the_committed_results(name: str) -> None:
    heading, rule, *rows = tables.tables()[name]().splitlines()
    assert rule.count("---") == heading.count("|") - 1
    assert {row.count("|") for row in rows} == {heading.count("|")}


def test_the_proof_is_taken_from_the_results() -> None:
    demo, serve, train = (read_json(tables.RESULTS / f"{name}.json") for name in ("demo", "serve", "train"))
    figures = dict(row.strip("| ").split(" | ") for row in tables.proof().splitlines()[2:])
    board = Leaderboard.load()
    assert figures["weighted relative PLCC gain of the demo after two rounds"] == (
        f"{board.gain_percent('demo:base', 'demo:round2'):+.1f} %"
    )
    assert figures["requests during the demo"].startswith(f"{demo['traffic']['requests']}: ")
    assert figures["longest blackout of a swap"].startswith(f"{max(demo['blackout_ms']):.0f} ms")
    rates = {(row["side"], row["kind"], row["callers"]): row["images_per_second"] for row in serve["table"]}
    ratio = rates["service", "k8", 64] / rates["vllm_serve", "k8", 64]
    assert f"{ratio:.2f} times" in figures.values()
    assert f"{train['ratios']['trl_over_ours_k8']} times as fast" in figures.values()


def test_a_table_replaces_only_its_place() -> None:
    text = "a\n<!-- table:x -->\nold\n<!-- /table:x -->\nb table:y\n"
    assert fill(text, {"x": lambda: "new", "y": lambda: "none"}) == text.replace("old", "new")


@pytest.mark.parametrize(
    ("text", "message"),
    [("<!-- table:y -->\n<!-- /table:y -->\n", "unknown table y"), ("<!-- table:x -->\nold\n", "has no end")],
)
def test_a_place_without_a_table_or_an_end_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fill(text, {"x": lambda: "new"})


@pytest.fixture(scope="module")
def board() -> Leaderboard:
    return Leaderboard.load()


@pytest.mark.parametrize(("model", "average"), [(BASE, 0.615), (ROUND_1, 0.751), (ROUND_2, 0.770)])
def test_weighted_averages_of_plcc(board: Leaderboard, model: str, average: float) -> None:
    assert round(board.weighted(model), 3) == average


def test_weighted_average_of_srcc(board: Leaderboard) -> None:
    assert round(board.weighted(ROUND_2, "srcc"), 3) == 0.726


@pytest.mark.parametrize(("model", "gain"), [(ROUND_1, 27.4), (ROUND_2, 31.8)])
def test_weighted_means_of_the_sets_gains(board: Leaderboard, model: str, gain: float) -> None:
    assert round(board.gain_percent(BASE, model), 1) == gain


def test_the_average_itself_rises_less(board: Leaderboard) -> None:
    assert round(100 * (board.weighted(ROUND_2) / board.weighted(BASE) - 1), 1) == 25.2


def test_a_large_set_counts_more_than_a_small_one() -> None:
    assert weighted_mean({"a": 0.5, "b": 0.8}, {"a": 200, "b": 100}) == pytest.approx(0.6)
    assert relative_gain_percent({"a": 0.5, "b": 0.8}, {"a": 0.6, "b": 0.8}, {"a": 200, "b": 100}) == pytest.approx(
        40 / 3
    )


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    return tmp_path


def test_serving(results: Path) -> None:
    sides = [
        ("direct", "k1"),
        ("direct", "k8"),
        ("service", "k1"),
        ("service", "k8"),
        ("service", "expected"),
        ("vllm_serve", "k1"),
        ("vllm_serve", "k8"),
    ]
    taken = {(*side, callers): [Measurement(callers + 0.5, 20, 30)] * 3 for side in sides for callers in (1, 16, 64)}
    beside = BesideRollouts([Measurement(1, 1, 1)], [Measurement(1, 1, 2)], [200.0])
    write_json(results / "serve.json", _summary(taken, beside))
    lines = tables.serving().splitlines()
    assert lines[0] == "| side | asked for | 1 client | 16 clients | 64 clients |"
    assert "| (b) this service over HTTP | expected | 1.5 (20 / 30) | 16.5 (20 / 30) | 64.5 (20 / 30) |" in lines
    assert len(lines) == 2 + len(sides)


def test_training(results: Path) -> None:
    rows = [("(a) shared prefix", "pass", 0.1), ("(b) repeated prefix", "pass", 0.8), ("(c) this trainer", "step", 2.5)]
    table = [{"side": side, "what": what, "seconds": seconds} for side, what, seconds in rows]
    write_json(results / "train.json", {"table": table})
    assert tables.training().splitlines()[2:] == [
        "| (a) shared prefix | pass | 0.1 |  |",
        "| (b) repeated prefix | pass | 0.8 | 8.0 |",
        "| (c) this trainer | step | 2.5 |  |",
    ]


def test_replicas(results: Path) -> None:
    closed = {"replica-1": 0.3, "replica-2": 0.52}
    change = {"kind": "promotion", "first_seconds": 1.24, "last_seconds": 9.0, "blackout_seconds": closed}
    write_json(results / "replicas.json", {"changes": [{**change, "overlapping_blackouts": 0}]})
    assert tables.replicas().splitlines()[2:] == [
        "| 1. promotion | 1.2 s | 9.0 s | 0.30 / 0.52 s | 0 |",
    ]


def test_the_gates_errors_are_shown_for_each_share_of_common_noise(results: Path) -> None:
    row = {"pictures": 48, "rule": "its interval", "equal_refused": [0.135, 0.04, 0], "worse_passed": [0.1, 0.1, 0.07]}
    write_json(results / "gate.json", {"loss": 0.05, "table": [row]})
    assert tables.gate().splitlines()[2:] == ["| 48 | its interval | 14% / 4% / 0% | 10% / 10% / 7% |"]


def test_the_committed_results_have_the_parts_that_the_benchmarks_write() -> None:
    serve, train, replicas, gate = (read_json(tables.RESULTS / name) for name in tables.TAKEN)
    assert set(serve["table"][0]) == {"side", "kind", "callers", "images_per_second", "p50_ms", "p99_ms"}
    assert {"table", "ratios", "votes"} <= set(train)
    assert len(replicas["changes"]) == 4
    assert replicas["traffic"]["failed"] == replicas["traffic"]["mixed"] == 0
    default = next(row for row in gate["table"] if row["pictures"] == 12 * default_of("held_back_groups"))
    assert len(gate["shared"]) == len(default["equal_refused"]) == len(default["worse_passed"])


def default_of(setting: str) -> int:
    return int(EvolveSettings.model_fields[setting].default)


def test_a_folder_without_results_is_refused_and_changes_nothing(results: Path, tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "other.json").write_text("{}")
    with pytest.raises(typer.BadParameter, match="run `make bench`"):
        tables.main(tmp_path / "bench")
    assert not list(results.glob("*.json"))
