"""A study: its pictures and starting checkpoints, then its trials, one round after another on one service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from service.versions.store import VersionStore
from trainer.demo.benchmarks import write_benchmarks
from trainer.demo.contents import content
from trainer.demo.run import CHECKPOINT, POOL_IMAGES, service
from trainer.errors import UserError
from trainer.evaluation.ablations import supervised
from trainer.evaluation.ablations.arms import Start
from trainer.evaluation.ablations.clock import tell
from trainer.evaluation.ablations.results import collect
from trainer.evaluation.ablations.runner import Runner
from trainer.evaluation.ablations.trial import Scale, Trial
from trainer.files import write_json
from trainer.leftovers import folder_lock
from trainer.progress import Stages


def run(study: Path, planned: Sequence[Trial], scale: Scale) -> None:
    """Runs what is not done yet, and writes `results.json` after each round.

    Raises:
        ValueError: the study was begun at another scale.
        Occupied: another process is at work in it.
        Exception: as `Runner.run_round`.
    """
    _check_scale(study, scale)
    study.mkdir(parents=True, exist_ok=True)
    stages = Stages(study / "stages.jsonl")
    stages.say(tell(planned))
    if not any(trial.left for trial in planned):
        return
    with folder_lock(study):
        starts = _prepare(study, {trial.arm.start for trial in planned}, stages)
        with service(study, stages) as (public, operator):
            runner = Runner(study, scale, stages, public, operator, starts)
            runner.measure_starts()
            for trial in planned:
                _run(trial, runner, planned)


def _check_scale(study: Path, scale: Scale) -> None:
    began = collect(study)["scale"]
    if began and began != asdict(scale):
        flags = " ".join(f"--{name} {value}" for name, value in began.items())
        raise UserError(f"the study in {study} was begun with {flags}; go on with those, or give another --runs")


def _run(trial: Trial, runner: Runner, planned: Sequence[Trial]) -> None:
    while trial.left:
        number = trial.left[0]
        runner.stages.say(f"\n{trial.name}: round {number} of {trial.arm.rounds}")
        runner.run_round(trial, number)
        write_json(runner.study / "results.json", collect(runner.study))
        runner.stages.say(trial.results[-1].get("failed", tell(planned)))


def _prepare(study: Path, wanted: set[Start], stages: Stages) -> dict[Start, str]:
    """Benchmarks, pool and starting checkpoints; the versions of the latter in the store."""
    _once(study / "benchmarks", write_benchmarks, stages)
    _once(study / "pool", _write_pool, stages)
    store = VersionStore(study / "store")
    embedded = store.add(CHECKPOINT, parent=None, profile="plain", origin="the embedded checkpoint").id
    starts: dict[Start, str] = {"embedded": embedded}
    if "supervised" in wanted:
        _once(study / "supervised", supervised.make, stages)
        origin = "tuned on the true scores of two families"
        starts["supervised"] = store.add(study / "supervised", parent=embedded, profile="plain", origin=origin).id
    return starts


def _write_pool(folder: Path) -> None:
    folder.mkdir()
    for index in range(POOL_IMAGES):
        content("pool", index).save(folder / f"{index:03d}.png")


def _once(folder: Path, make: Callable[[Path], None], stages: Stages) -> None:
    """Makes a folder unless it is there; a kill leaves no half of one."""
    if not folder.exists():
        with stages.stage(folder.name, total=None), TemporaryDirectory(dir=folder.parent) as beside:
            make(Path(beside) / folder.name)
            (Path(beside) / folder.name).rename(folder)
