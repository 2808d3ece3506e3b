"""Runs a study: makes its pictures and starting checkpoints, then runs its trials, round by round, on one service."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.progress import Progress
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from evoquality import Client
from service.configuration.settings import operator_key
from service.versions.store import VersionStore
from tests.benchmarks.ablations.arms import DOMAIN, Start
from tests.benchmarks.ablations.trial import Scale, Trial, collect, remaining, row, starting
from tests.benchmarks.checkpoint.pictures import make_pictures
from tests.benchmarks.checkpoint.recipe import tune
from trainer.demo.assemble import EMBEDDED
from trainer.demo.audit import audit_round
from trainer.demo.benchmarks import SETS, write_benchmarks
from trainer.demo.contents import content
from trainer.demo.run import POOL_IMAGES, service
from trainer.errors import Collapsed, GateRefused, Regressed, UserError
from trainer.evaluation.benchmarks.load import load_all
from trainer.evaluation.evaluate import evaluate
from trainer.evolve import evolve
from trainer.files import write_json
from trainer.leftovers import folder_lock
from trainer.progress import Stages
from trainer.settings.protocol import Protocol

CONTENTS = range(7200, 7260)
"""Contents that no step of the recipe uses."""
STEPS, LEARNING_RATE = 12, 3e-4
"""Few and small steps, to leave room for a gain: 100 steps at 1e-3 bring the other families to a PLCC of 0.67, where
two rounds from the embedded checkpoint end."""


def make_supervised(directory: Path, *, contents: range = CONTENTS, steps: int = STEPS, seed: int = 0) -> None:
    """Writes the supervised checkpoint of the stacking ablation (the paper starts from VisualQuality-R1).

    It is the embedded checkpoint with its scores tuned on the true quality of `train` pictures with two families of
    distortions; the other families' benchmarks are out of its domain. Comparisons are not tuned.
    """
    kinds = [kind for name in DOMAIN for kind in SETS[name]]
    pictures = make_pictures("train", contents, os.cpu_count() or 1, kinds)
    processor = Qwen2_5_VLProcessor.from_pretrained(EMBEDDED, trust_remote_code=False)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(EMBEDDED, dtype="float32", trust_remote_code=False)
    with Progress() as progress:
        tune(
            model,
            processor,
            pictures,
            pictures.quality,
            steps=steps,
            learning_rate=LEARNING_RATE,
            pairs=False,
            seed=seed,
            progress=progress,
        )
    model.save_pretrained(directory)
    for file in EMBEDDED.glob("*.json"):  # a hot swap replaces only weights
        shutil.copy(file, directory)
    shutil.copy(EMBEDDED / "chat_template.jinja", directory)


@dataclass(frozen=True)
class Runner:
    """Runs trials on one service, which serves the trial's current version before each step.

    `starts`: version id of each starting checkpoint in the service's store.
    """

    study: Path
    scale: Scale
    stages: Stages
    public: str
    operator: str
    starts: dict[Start, str]

    def measure_starts(self) -> None:
        """Evaluates the starting checkpoints."""
        for start, version in self.starts.items():
            if not starting(self.study, start).exists():
                self._serve(version)
                predictions = self.study / "starts" / start
                self._evaluate(starting(self.study, start), predictions, self.stages, f"evaluation of {start}")

    def run_round(self, trial: Trial, number: int) -> None:
        """Runs or resumes one round of a trial, audits its votes and evaluates it.

        A round that collapses, is rolled back, or gives all pictures one score counts as a failed result.

        Raises:
            ServiceError, Unreachable, DiskFull, Terminated: as `evolve`; run again to resume.
            UserError: the trial was started with other settings.
        """
        self._serve(trial.serving(self.starts[trial.arm.start]))
        failed = self._evolved(trial, number) or self._evaluated(trial, number)
        write_json(trial.result(number), row(trial, number, failed))

    def _evolved(self, trial: Trial, number: int) -> str | None:
        """Evolves. Returns the reason if the round gives no version to evaluate, else None."""
        try:
            evolve(trial.settings(number, self.scale, self.operator))
        except (GateRefused, Regressed, Collapsed) as end:
            return f"{type(end).__name__}: {end}"
        before = trial.round(number - 1) if number > 1 else None
        write_json(trial.round(number) / "audit.json", audit_round(trial.round(number), before))
        return None

    def _evaluated(self, trial: Trial, number: int) -> str | None:
        """Evaluates. Returns the reason if there are no metrics, else None."""
        stages, predictions = Stages(trial.folder / "stages.jsonl"), trial.folder / "predictions" / f"round-{number}"
        try:
            self._evaluate(trial.evaluation(number), predictions, stages, f"round {number}: evaluation")
        except UserError as constant:
            return f"evaluation: {constant}"
        return None

    def _serve(self, version: str) -> None:
        with Client(self.operator, operator_key(self.study / "store" / "operator.key")) as client:
            client.promote(version)

    def _evaluate(self, file: Path, predictions: Path, stages: Stages, name: str) -> None:
        sets = load_all(self.study / "benchmarks")
        with stages.stage(name, total=sum(len(one.images) for one in sets), unit="images") as advance:
            result = evaluate(self.public, sets, Protocol("expected"), predictions, advance=advance)
        write_json(file, result.as_dict())


def run(study: Path, planned: Sequence[Trial], scale: Scale) -> None:
    """Runs the rounds that are left, and writes `results.json` after each.

    Raises:
        UserError: the study was started at another scale.
        Occupied: another process works in the folder.
        Exception: as `Runner.run_round`.
    """
    _check_scale(study, scale)
    study.mkdir(parents=True, exist_ok=True)
    stages = Stages(study / "stages.jsonl")
    stages.say(remaining(planned))
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
        raise UserError(f"the study in {study} was started with {flags}; use the same, or another folder with --runs")


def _run(trial: Trial, runner: Runner, planned: Sequence[Trial]) -> None:
    while trial.left:
        number = trial.left[0]
        runner.stages.say(f"\n{trial.name}: round {number} of {trial.arm.rounds}")
        runner.run_round(trial, number)
        write_json(runner.study / "results.json", collect(runner.study))
        runner.stages.say(trial.results[-1].get("failed", remaining(planned)))


def _prepare(study: Path, wanted: set[Start], stages: Stages) -> dict[Start, str]:
    """Makes benchmarks, pool and starting checkpoints. Returns the checkpoints' versions in the store."""
    _once(study / "benchmarks", write_benchmarks, stages)
    _once(study / "pool", _write_pool, stages)
    store = VersionStore(study / "store")
    embedded = store.add(EMBEDDED, parent=None, profile="plain", origin="the embedded checkpoint").id
    starts: dict[Start, str] = {"embedded": embedded}
    if "supervised" in wanted:
        _once(study / "supervised", make_supervised, stages)
        origin = "tuned on the true scores of two families"
        starts["supervised"] = store.add(study / "supervised", parent=embedded, profile="plain", origin=origin).id
    return starts


def _write_pool(folder: Path) -> None:
    folder.mkdir()
    for index in range(POOL_IMAGES):
        content("pool", index).save(folder / f"{index:03d}.png")


def _once(folder: Path, make: Callable[[Path], None], stages: Stages) -> None:
    """Makes a folder unless it exists. It is renamed into place, so a kill leaves no partial one."""
    if not folder.exists():
        with stages.stage(folder.name, total=None), TemporaryDirectory(dir=folder.parent) as beside:
            make(Path(beside) / folder.name)
            (Path(beside) / folder.name).rename(folder)
