"""The leaderboard's file, and the README's tables that are made of it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tests.benchmarks import leaderboard_plot, tables
from tests.benchmarks import readme_tables as speed
from tests.benchmarks.leaderboard import DEMO, Leaderboard, Row, demo_rows
from tests.benchmarks.leaderboard_table import demo_models
from trainer.evaluation.metrics import measure
from trainer.files import read_json, write_json

REPOSITORY = Path(__file__).parents[2]
PAPERS_SETS = ["koniq10k", "spaq", "agiqa3k", "livec", "kadid10k", "pipal", "tid2013", "csiq"]


def row(**changes: Any) -> Row:
    known = {
        "model": "mine", "version": "v1", "benchmark": "csiq", "n": 866, "plcc": 0.7, "plcc_fitted": 0.71,
        "srcc": 0.69, "krcc": 0.5, "rmse": 0.2, "source": "by hand",
    }  # fmt: skip
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
        "model", "version", "benchmark", "n", "plcc", "plcc_fitted", "srcc", "krcc", "rmse", "source",
    }  # fmt: skip


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
    with pytest.raises(ValueError, match=r"board\.json is no leaderboard"):
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
    with pytest.raises(ValueError, match="is no finished demo run"):
        demo_rows(tmp_path)
    write_json(tmp_path / "seconds.json", {"total": 300})
    rows = demo_rows(tmp_path)
    assert [(one.model, one.version) for one in rows] == [
        ("demo:base", "v0"), ("demo:round9", "v9"), ("demo:round10", "v10"),
    ]  # fmt: skip
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


def test_the_readme_says_what_the_files_say() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert tables.fill(tables.fill(text, tables.tables()), speed.TABLES) == text


def test_the_readmes_plot_is_of_the_tables_figures() -> None:
    def parted(svg: str) -> tuple[list[str], list[float]]:
        number = r"-?\d+\.\d+"
        return re.split(number, svg), [float(found) for found in re.findall(number, svg)]

    board = Leaderboard.load()
    (text, places), (drawn, expected) = (
        parted(svg) for svg in ((REPOSITORY / tables.PLOT).read_text(), leaderboard_plot.demo(board))
    )
    assert text == drawn
    assert places == pytest.approx(expected, abs=0.01)
    worse = board.with_demo([one.model_copy(update={"plcc": 0.1}) for one in board.rows if one.model.startswith(DEMO)])
    assert parted(leaderboard_plot.demo(worse))[1] != pytest.approx(expected, abs=0.01)


def test_every_place_in_the_readme_has_a_table() -> None:
    places = re.findall(r"<!-- table:(\S+) -->", (REPOSITORY / "README.md").read_text())
    assert Counter(places) == Counter([*tables.tables(), *speed.TABLES])


def test_a_table_is_written_in_its_place_alone() -> None:
    text = "a\n<!-- table:x -->\nold\n<!-- /table:x -->\nb <!-- table:y -->\n"
    assert tables.fill(text, {"x": lambda: "new"}) == text.replace("old", "new")


def test_a_table_without_a_place_is_told() -> None:
    with pytest.raises(ValueError, match="<!-- table:x -->"):
        tables.fill("nothing\n", {"x": lambda: "new"})
