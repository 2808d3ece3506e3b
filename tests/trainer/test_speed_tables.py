"""The README's tables of speed read what the benchmarks of speed write."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from tests.benchmarks import readme_tables
from tests.benchmarks.serving.__main__ import _summary
from tests.benchmarks.serving.load import Measurement
from tests.benchmarks.serving.rollouts import BesideRollouts
from trainer.files import read_json, write_json


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(readme_tables, "RESULTS", tmp_path)
    return tmp_path


def test_serving(results: Path) -> None:
    sides = [("direct", "k1"), ("direct", "k8"), ("service", "k1"), ("service", "k8"), ("service", "expected"),
             ("vllm_serve", "k1"), ("vllm_serve", "k8")]  # fmt: skip
    taken = {(*side, callers): [Measurement(callers + 0.5, 20, 30)] * 3 for side in sides for callers in (1, 16, 64)}
    beside = BesideRollouts([Measurement(1, 1, 1)], [Measurement(1, 1, 2)], [200.0])
    write_json(results / "serve.json", _summary(taken, beside))
    lines = readme_tables.serving().splitlines()
    assert lines[0] == "| side | asked for | 1 caller | 16 callers | 64 callers |"
    assert "| (b) this service over HTTP | expected | 1.5 (20 / 30) | 16.5 (20 / 30) | 64.5 (20 / 30) |" in lines
    assert len(lines) == 2 + len(sides)


def test_training(results: Path) -> None:
    rows = [("(a) shared prefix", "pass", 0.1), ("(b) repeated prefix", "pass", 0.8), ("(c) this trainer", "step", 2.5)]
    table = [{"side": side, "what": what, "seconds": seconds} for side, what, seconds in rows]
    write_json(results / "train.json", {"table": table})
    assert readme_tables.training().splitlines()[2:] == [
        "| (a) shared prefix | pass | 0.1 |  |",
        "| (b) repeated prefix | pass | 0.8 | 8.0 |",
        "| (c) this trainer | step | 2.5 |  |",
    ]


def test_replicas(results: Path) -> None:
    closed = {"replica-1": 0.3, "replica-2": 0.52}
    change = {"kind": "promotion", "first_seconds": 1.24, "last_seconds": 9.0, "gate_closed_seconds": closed}
    write_json(results / "replicas.json", {"changes": [{**change, "overlapping_gates": 0}]})
    assert readme_tables.replicas().splitlines()[2:] == [
        "| 1. promotion | 1.2 s | 9.0 s | 0.30 / 0.52 s | 0 |",
    ]


def test_the_committed_results_have_the_parts_that_the_benchmarks_write() -> None:
    serve, train, replicas = (read_json(readme_tables.RESULTS / name) for name in readme_tables.TAKEN)
    assert set(serve["table"][0]) == {"side", "kind", "callers", "images_per_second", "p50_ms", "p99_ms"}
    assert {"table", "ratios", "votes"} <= set(train)
    assert len(replicas["changes"]) == 4
    assert replicas["traffic"]["failed"] == replicas["traffic"]["mixed"] == 0


def test_a_folder_without_results_is_refused_and_changes_nothing(results: Path, tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "other.json").write_text("{}")
    with pytest.raises(typer.BadParameter, match="run `make bench`"):
        readme_tables.main(tmp_path / "bench")
    assert not list(results.glob("*.json"))
