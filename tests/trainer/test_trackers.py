"""TensorBoard and MLflow follow a run; a training that is taken up again leaves every step there once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.reporting.trackers import MLflow, TensorBoard, Tracker, Trackers

REPORT: dict[str, Any] = {
    "rounds": [
        {"round": 0, "benchmarks": {"noise": {"plcc": 0.5}}},
        {
            "round": 1, "benchmarks": {"noise": {"plcc": 0.7}}, "promotion": {"version": "v2"},
            "gate": {"passed": True, "criteria": [{"name": "spread", "after": 0.4}]},
        },
    ],
    "costs": [{"stage": "round 1: votes", "seconds": 12.5}],
}  # fmt: skip


def resume(kind: Callable[..., Tracker], *arguments: object) -> None:
    """Six steps, killed after the fourth, taken up from a checkpoint after the second."""
    for done, until in ((0, 4), (2, 6)):
        tracker = kind(*arguments)
        tracker.training(1, done)
        for step in range(done, until):
            tracker.step({"step": step, "reward": 0.5 + step / 10, "kl": 0.1})


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, round(event.value, 3)) for event in events.Scalars(name)]


@pytest.fixture
def report(tmp_path: Path) -> Path:
    for name in ("report.html", "report.json"):
        (tmp_path / name).write_text("written")
    return tmp_path


def test_tensorboard_has_every_step_of_a_resumed_training_once(tmp_path: Path) -> None:
    resume(TensorBoard, tmp_path)
    assert scalars(tmp_path / "round-1", "train/reward") == [(n, 0.5 + n / 10) for n in range(6)]


def test_tensorboard_has_each_rounds_figures_once_however_often_they_are_told(report: Path) -> None:
    for _ in range(2):
        TensorBoard(report / "tensorboard").report(REPORT, report)
    rounds = report / "tensorboard" / "rounds"
    assert scalars(rounds, "plcc/noise") == [(0, 0.5), (1, 0.7)]
    assert scalars(rounds, "seconds/votes") == [(1, 12.5)]
    assert scalars(rounds, "gate/spread") == [(1, 0.4)]


def test_mlflow_has_every_step_the_settings_and_the_report(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a server's stores need more than the client
    from mlflow import MlflowClient

    uri, settings = (report / "mlflow").as_uri(), {"seed": 3, "pool": "photos"}
    resume(MLflow, uri, report, settings)
    for _ in range(2):
        MLflow(uri, report, settings).report(REPORT, report)
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("evoquality").experiment_id])
    history = [(point.step, round(point.value, 3)) for point in client.get_metric_history(run.info.run_id, "reward")]
    assert history == [(n, 0.5 + n / 10) for n in range(6)]
    assert (run.data.params, run.info.status) == ({"seed": "3", "pool": "photos"}, "FINISHED")
    assert [point.value for point in client.get_metric_history(run.info.run_id, "seconds/votes")] == [12.5]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"report.html", "report.json"}


@pytest.mark.parametrize(
    "end", [{"collapse": {}}, {"gate": {"passed": True}, "rollback": {}}, {"gate": {"passed": False}}]
)
def test_a_round_that_was_not_promoted_has_failed_in_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: dict[str, Any]
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient

    uri = (tmp_path / "mlflow").as_uri()
    for name in ("report.html", "report.json"):
        (tmp_path / name).write_text("written")
    MLflow(uri, tmp_path, {}).report({"rounds": [{"round": 0}, {"round": 1, **end}], "costs": []}, tmp_path)
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("evoquality").experiment_id])
    assert run.info.status == "FAILED"


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "a file").touch()
    both = Trackers([TensorBoard(tmp_path / "a file" / "x"), TensorBoard(tmp_path / "logs")], said.append)
    both.follow(1, None, 0)
    for step in range(3):
        both.follow(1, {"step": step, "reward": 0.5}, 1)
    assert len(said) == 1
    assert said[0].startswith("TensorBoard no longer follows the run")
    assert len(scalars(tmp_path / "logs" / "round-1", "train/reward")) == 3
