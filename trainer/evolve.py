"""A run: rounds one after another, each starting from the version that the one before promoted."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from service.versions.store import VersionStore
from trainer import leftovers
from trainer.files import named, write_json
from trainer.leftovers import folder_lock
from trainer.progress import Stages
from trainer.promotion.probe import Probe
from trainer.reporting.report import write_report
from trainer.reporting.rounds import folders
from trainer.reporting.trackers import trackers
from trainer.round import Round
from trainer.settings.evolve import EvolveSettings
from trainer.stages.start import check_settings, start
from trainer.training import distributed
from trainer.training.choices import with_choices
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
    settings = with_choices(settings)
    distributed.run_on_main(settings.device, settings.dtype, partial(_lead, settings))


def _lead(settings: EvolveSettings) -> None:
    store = VersionStore(settings.store)
    with named(settings.run, "--run"):
        settings.run.mkdir(parents=True, exist_ok=True)
    stages = Stages(settings.run / "stages.jsonl")
    with folder_lock(settings.run, settings.patience, stages.say):
        for begun in folders(settings.run):
            check_settings(begun, settings)
        with folder_lock(store.root, settings.patience, stages.say):
            _evolve(settings, store, stages)


def _evolve(settings: EvolveSettings, store: VersionStore, stages: Stages) -> None:
    if not (settings.run / "round-1" / "start.json").exists():
        write_json(settings.run / "settings.json", settings.model_dump(mode="json"))
    probe = Probe.of(settings.probe, settings.samples, settings.seed) if settings.probe else None
    for note in probe.notes if probe else ():
        stages.say(note)
    key, followers = settings.operator_key(), trackers(settings, stages.say)
    limit = settings.max_answer_tokens
    with Workers(settings.operators, key, store, settings.patience, stages.say, max_answer_tokens=limit) as workers:
        leftovers.clear(settings.run, store, workers)
        for number in range(1, settings.rounds + 1):
            current = Round(number, settings, workers, stages, followers, probe)
            if version := current.promoted:
                serves = " and serves" if version == current.active else ""
                stages.say(f"already done: version {version} was promoted in round {number}{serves}")
            else:
                start(current)  # a refusal changes no file
                _run(current)
            followers.report(write_report(settings.run), settings.run)


def _run(current: Round) -> None:
    try:
        current.run()
    except Exception:
        with suppress(Exception):  # the error of the round decides the exit code
            current.trackers.report(write_report(current.settings.run), current.settings.run)
        raise
