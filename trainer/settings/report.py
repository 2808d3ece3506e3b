"""Which run is reported."""

from __future__ import annotations

from pathlib import Path

from pydantic import model_validator
from pydantic_settings import BaseSettings

from trainer.settings.service import CONFIG


class ReportSettings(BaseSettings):
    """Which run to report."""

    model_config = CONFIG

    run: Path
    """The run's folder."""

    @model_validator(mode="after")
    def _is_a_run(self) -> ReportSettings:
        if not (self.run / "settings.json").is_file():
            raise ValueError(
                f"{self.run} is not the folder of a run: it has no settings.json, which a run writes first; name the "
                "folder that was given to `evolve --run`"
            )
        return self
