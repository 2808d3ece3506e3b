"""Runs trials against one service: before each step it serves the version that the trial is at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from service.client import Client
from service.configuration.settings import operator_key
from trainer.errors import Collapsed, GateRefused, Regressed, UserError
from trainer.evaluation.ablations.arms import Start
from trainer.evaluation.ablations.results import row, starting
from trainer.evaluation.ablations.trial import Scale, Trial
from trainer.evaluation.benchmarks.load import load_all
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.protocol import Protocol
from trainer.evaluation.pseudo_labels.pool_audit import audit_round
from trainer.evolve import evolve
from trainer.files import write_json
from trainer.progress import Stages


@dataclass(frozen=True)
class Runner:
    """`starts`: the version of each starting checkpoint, in the service's store."""

    study: Path
    scale: Scale
    stages: Stages
    public: str
    operator: str
    starts: dict[Start, str]

    def measure_starts(self) -> None:
        """Evaluates the checkpoints that arms start from."""
        for start, version in self.starts.items():
            if not starting(self.study, start).exists():
                self._serve(version)
                predictions = self.study / "starts" / start
                self._evaluate(starting(self.study, start), predictions, self.stages, f"evaluation of {start}")

    def run_round(self, trial: Trial, number: int) -> None:
        """One round of a trial, from where it was left, with the audit of its votes and its evaluation.

        A round that collapses, is rolled back, or answers all pictures alike is a result too.

        Raises:
            ServiceError, Unreachable, DiskFull, Terminated: as `evolve`; started again, it goes on.
            ValueError: the trial was begun with other settings.
        """
        self._serve(trial.serving(self.starts[trial.arm.start]))
        failed = self._evolved(trial, number) or self._evaluated(trial, number)
        write_json(trial.result(number), row(trial, number, failed))

    def _evolved(self, trial: Trial, number: int) -> str | None:
        """Why the round has no version to evaluate; None if it has."""
        try:
            evolve(trial.settings(number, self.scale, self.operator))
        except (GateRefused, Regressed, Collapsed) as end:
            return f"{type(end).__name__}: {end}"
        before = trial.round(number - 1) if number > 1 else None
        write_json(trial.round(number) / "audit.json", audit_round(trial.round(number), before))
        return None

    def _evaluated(self, trial: Trial, number: int) -> str | None:
        """Why there are no metrics; None if there are."""
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
