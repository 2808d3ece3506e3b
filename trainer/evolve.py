"""A run: rounds one after another, each starting from the version that the one before promoted."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from service.versions.store import VersionStore
from trainer import leftovers
from trainer.files import write_json
from trainer.leftovers import alone_in
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
        GateRefused, Regressed, Collapsed, WrongVersion, Unreachable: see `Round.run`.
        ServiceError: the service refused a request.
        ConnectionError: on other ranks than 0: that process ended.
        Occupied: another trainer is at work in the run's folder, or on the store for longer than the patience.
        DiskFull: a file could not be written; nothing is lost.
        Terminated: a signal ended the run; a checkpoint is written.
    """
    distributed.run_on_main(settings.device, settings.dtype, partial(_lead, settings))


def _lead(settings: EvolveSettings) -> None:
    store = VersionStore(settings.store)
    settings.run.mkdir(parents=True, exist_ok=True)
    stages = Stages(settings.run / "stages.jsonl")
    with alone_in(store.root, settings.patience, stages.say), alone_in(settings.run):
        _evolve(settings, store, stages)


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
                with suppress(Exception):  # what ended the round is the news, and its exit code
                    followers.report(write_report(settings.run), settings.run)
                raise
            followers.report(write_report(settings.run), settings.run)
