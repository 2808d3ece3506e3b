"""Experiment trackers beside the report: TensorBoard, by files in the run's folder, and MLflow, on a server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from trainer.files import read_json, write_json
from trainer.settings.evolve import EvolveSettings

Row = dict[str, Any]
"""A step's metrics, as a line of `steps.jsonl` has them."""


class Tracker(Protocol):
    """Follows the rounds of a run."""

    def training(self, number: int, done: int) -> None:
        """A round's training begins, or resumes after `done` steps; metrics of later steps are void."""

    def step(self, row: Row) -> None:
        """A step is done."""

    def report(self, report: dict[str, Any], folder: Path) -> None:
        """`report.json` and `report.html` were written into a folder, possibly again."""


class Trackers:
    """All trackers. One that fails is reported and dropped: no round ends because a server is down."""

    def __init__(self, trackers: Sequence[Tracker], say: Callable[[str], None]) -> None:
        self._trackers = list(trackers)
        self._say = say

    def follow(self, number: int, row: Row | None, steps: int) -> None:
        """Progress of the online stage: first the steps done, without a row, then each step's row."""
        self._each(lambda tracker: tracker.training(number, steps) if row is None else tracker.step(row))

    def report(self, report: dict[str, Any], folder: Path) -> None:
        """The report was written."""
        self._each(lambda tracker: tracker.report(report, folder))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                call(tracker)
            except Exception as error:  # every server and file system raises its own kind
                self._say(f"{type(tracker).__name__} no longer follows the run: {error}")
                self._trackers.remove(tracker)


def trackers(settings: EvolveSettings, say: Callable[[str], None]) -> Trackers:
    """The trackers that the settings name."""
    found: list[Tracker] = []
    if settings.tensorboard:
        found.append(TensorBoard(settings.run / "tensorboard"))
    if settings.mlflow:
        found.append(MLflow(settings.mlflow, settings.run, settings.model_dump(mode="json")))
    return Trackers(found, say)


class TensorBoard:
    """One log for each round with its steps, and one for the whole run with a point for each round."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter
        self._folder = folder
        self._steps: Any = None

    def training(self, number: int, done: int) -> None:
        self._steps = self._writer(str(self._folder / f"round-{number}"), purge_step=done)

    def step(self, row: Row) -> None:
        for name, value in _numbers(row):
            self._steps.add_scalar(f"train/{name}", value, row["step"])
        self._steps.flush()

    def report(self, report: dict[str, Any], folder: Path) -> None:
        with self._writer(str(self._folder / "rounds"), purge_step=0) as writer:
            for entry in report["rounds"]:
                for name, value in _of_round(report, entry["round"]):
                    writer.add_scalar(name, value, entry["round"])


class MLflow:
    """One MLflow run for each round. `mlflow.json` in the run's folder keeps their ids for a resumed training."""

    def __init__(self, uri: str, run: Path, settings: dict[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        self._client = MlflowClient(uri)
        self._run = run
        self._settings = settings
        self._id = ""
        self._known = -1

    def training(self, number: int, done: int) -> None:
        """MLflow deletes nothing: steps that it already has are not logged again."""
        self._id = self._id_of(number)
        self._known = max((point.step for point in self._client.get_metric_history(self._id, "reward")), default=-1)

    def step(self, row: Row) -> None:
        if row["step"] > self._known:
            self._log(self._id, dict(_numbers(row)), row["step"])

    def report(self, report: dict[str, Any], folder: Path) -> None:
        for entry in report["rounds"][1:]:
            run = self._id_of(entry["round"])
            logged = self._client.get_run(run).data.metrics
            new = {name: value for name, value in _of_round(report, entry["round"]) if logged.get(name) != value}
            self._log(run, new, 0)
            for name in ("report.html", "report.json"):
                self._client.log_artifact(run, str(folder / name))
            if "promotion" in entry:
                self._client.set_terminated(run, "FINISHED")
            elif "rollback" in entry or "collapse" in entry or not entry.get("gate", {"passed": True})["passed"]:
                self._client.set_terminated(run, "FAILED")

    def _log(self, run: str, values: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = round(1000 * time.time())
        self._client.log_batch(run, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    def _id_of(self, number: int) -> str:
        file = self._run / "mlflow.json"
        ids: dict[str, str] = read_json(file) if file.exists() else {}
        if str(number) not in ids:
            ids[str(number)] = self._begin(number)
            write_json(file, ids)
        return ids[str(number)]

    def _begin(self, number: int) -> str:
        experiment = self._client.get_experiment_by_name("evoquality")
        place = experiment.experiment_id if experiment else self._client.create_experiment("evoquality")
        run: str = self._client.create_run(place, run_name=f"{self._run.name} round {number}").info.run_id
        for name, value in self._settings.items():
            self._client.log_param(run, name, value)
        return run


def _numbers(row: Row) -> Iterator[tuple[str, float]]:
    return ((name, float(value)) for name, value in row.items() if name != "step" and isinstance(value, int | float))


def _of_round(report: dict[str, Any], number: int) -> Iterator[tuple[str, float]]:
    """A round's seconds by stage, PLCC by set, and the gate's measurements."""
    entry = next(entry for entry in report["rounds"] if entry["round"] == number)
    for cost in report["costs"]:
        round_, _, stage = cost["stage"].partition(": ")
        if round_ == f"round {number}":
            yield f"seconds/{stage}", cost["seconds"]
    for name, metrics in entry.get("benchmarks", {}).items():
        yield f"plcc/{name}", metrics["plcc"]
    for criterion in entry.get("gate", {}).get("criteria", []):
        if isinstance(criterion["after"], int | float):
            yield f"gate/{criterion['name']}", criterion["after"]
