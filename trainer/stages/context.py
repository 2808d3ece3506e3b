"""The context of every stage of a round: its number, the settings, the service, and the files of earlier stages."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from service.prompts import PROFILES, Profile
from service.versions.store import VersionStore
from trainer.errors import UserError
from trainer.files import read_json
from trainer.progress import Advance, Stages
from trainer.settings.evolve import EvolveSettings
from trainer.workers.workers import Workers


@dataclass(frozen=True)
class RoundContext:
    """Round `number` (from 1) of a run."""

    number: int
    settings: EvolveSettings
    workers: Workers
    stages: Stages

    def stage(self, name: str, *, total: int | None = None, unit: str = "") -> AbstractContextManager[Advance]:
        """Shows the progress of a stage of this round, see `Stages.stage`."""
        return self.stages.stage(f"round {self.number}: {name}", total=total, unit=unit)

    @property
    def folder(self) -> Path:
        """The round's folder."""
        return self.settings.run / f"round-{self.number}"

    @property
    def seed(self) -> int:
        """The round's own seed."""
        return self.settings.seed * 1000 + self.number

    @cached_property
    def store(self) -> VersionStore:
        """The store that service and trainer share."""
        return VersionStore(self.settings.store)

    @property
    def active(self) -> str:
        """The version that the store's pointer names; a replica may lag behind it.

        Raises:
            UserError: it names none.
        """
        active = self.store.active()
        if active is None:
            raise UserError(f"no version of {self.store.root} serves; --store must be the running service's store")
        return active.version

    @cached_property
    def base(self) -> str:
        """The version the round starts from."""
        return str(read_json(self.folder / "start.json")["version"])

    @cached_property
    def profile(self) -> Profile:
        """The format of that version's answers."""
        return PROFILES[self.store.info(self.base).profile]
