"""A run: rounds one after another, each starting from the version that the one before promoted."""

from __future__ import annotations

from service.client import Client
from trainer.files import write_json
from trainer.progress import Stages
from trainer.reporting.report import write_report
from trainer.round import Round
from trainer.settings import EvolveSettings


def evolve(settings: EvolveSettings) -> None:
    """Runs all rounds that are not done yet, and writes the report after each.

    Raises:
        GateRefused, WrongVersion: see `Round.run`.
        ServiceError: the service refused a request.
        httpx.TransportError: the service stayed unreachable.
    """
    settings.run.mkdir(parents=True, exist_ok=True)
    write_json(settings.run / "settings.json", settings.model_dump(mode="json"))
    stages = Stages(settings.run / "stages.jsonl")
    with Client(settings.operator, settings.operator_key()) as operator:
        operator.wait_ready()
        for number in range(1, settings.rounds + 1):
            try:
                Round(number, settings, operator, stages).run()
            finally:
                write_report(settings.run)
