"""A run: rounds one after another, each starting from the version that the one before promoted."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from service.extras import require
from service.versions.store import VersionStore
from trainer import leftovers
from trainer.files import named, write_json
from trainer.leftovers import folder_lock
from trainer.pool.sources import PARQUET, paths
from trainer.progress import Stages
from trainer.promotion.probe import Probe
from trainer.reporting.report import write_report
from trainer.reporting.trackers import trackers
from trainer.round import Round
from trainer.settings.evolve import EvolveSettings
from trainer.training import distributed
from trainer.workers.workers import Workers


def evolve(settings: EvolveSettings) -> None:
    """Runs all rounds that are not done yet, and writes the report after each. Under torchrun on rank 0; the other
    processes take part in its training.

    Raises:
        UserError: a setting does not fit the run's folder, the store or the pool.
        GateRefused, Regressed, Collapsed, WrongVersion, Unreachable: see `Round.run`.
        ServiceError: the service refused a request.
        RankLost: on other ranks than 0: the process of rank 0 ended.
        Occupied: another trainer is at work in the run's folder, or on the store for longer than the patience.
        DiskFull: a file could not be written; nothing is lost.
        Terminated: a signal ended the run; a checkpoint is written.
    """
    distributed.run_on_main(settings.device, settings.dtype, partial(_lead, settings))


def _lead(settings: EvolveSettings) -> None:
    _require_extras(settings)
    store = VersionStore(settings.store)
    with named(settings.run, "--run"):
        settings.run.mkdir(parents=True, exist_ok=True)
    stages = Stages(settings.run / "stages.jsonl")
    with folder_lock(store.root, settings.patience, stages.say), folder_lock(settings.run):
        _evolve(settings, store, stages)


def _require_extras(settings: EvolveSettings) -> None:
    """Raises UserError unless the extras that the settings need are installed."""
    if settings.mlflow:
        require("mlflow", "--mlflow")
    if any(path.suffix.lower() == PARQUET for path, _ in paths(settings.pool, settings.follow_links)):
        require("parquet", "a pool in Parquet")


def _evolve(settings: EvolveSettings, store: VersionStore, stages: Stages) -> None:
    write_json(settings.run / "settings.json", settings.model_dump(mode="json"))
    probe = Probe.of(settings.probe, settings.samples, settings.seed) if settings.probe else None
    for note in probe.notes if probe else ():
        stages.say(note)
    key, followers = settings.operator_key(), trackers(settings, stages.say)
    with Workers(settings.operators, key, store, settings.patience, stages.say) as workers:
        leftovers.clear(settings.run, store, workers)
        for number in range(1, settings.rounds + 1):
            try:
                Round(number, settings, workers, stages, followers, probe).run()
            except Exception:
                with suppress(Exception):  # the error of the round decides the exit code
                    followers.report(write_report(settings.run), settings.run)
                raise
            followers.report(write_report(settings.run), settings.run)
