"""The handover of the policy under training to the engine that samples its rollouts."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from service.versions.store import VersionStore
from trainer.files import writing
from trainer.leftovers import run_id
from trainer.settings.evolve import EvolveSettings
from trainer.training.rollouts import Served
from trainer.workers.workers import Workers


class Sampled(Protocol):
    """A policy that writes the files of a handover."""

    def hand_over(self, directory: Path) -> None:
        """Writes the files that the engine loads."""


class Handover(ABC):
    """A way to the engine. `workers` are the engines to ask; the names of handed-over files begin with `mark`."""

    def __init__(self, workers: Workers, mark: str) -> None:
        self.workers = workers
        self.mark = mark

    @abstractmethod
    def served(self, policy: Sampled, label: str) -> AbstractContextManager[Served]:
        """Serves the policy as it is now for the block.

        Its name is new: an engine that is given new weights under an old name keeps serving the old ones.
        """


class AdapterHandover(Handover):
    """An adapter beside the version that answers users."""

    def __init__(self, workers: Workers, store: VersionStore, version: str, mark: str) -> None:
        super().__init__(workers, mark)
        self._adapters = store.within("adapters")
        self._version = version

    @contextmanager
    def served(self, policy: Sampled, label: str) -> Iterator[Served]:
        self._adapters.mkdir(exist_ok=True)
        directory = _written(policy, self._adapters, f"{self.mark}-{label}")
        try:
            self.workers.load_adapter(directory.name)
            yield Served(self._version, directory.name)
        finally:
            self.workers.unload_adapter(directory.name)
            shutil.rmtree(directory, ignore_errors=True)


class WeightsHandover(Handover):
    """All weights, which overwrite those of a rollout engine; only this trainer uses it."""

    def __init__(self, workers: Workers, folder: Path, mark: str) -> None:
        super().__init__(workers, mark)
        self._folder = folder

    @contextmanager
    def served(self, policy: Sampled, label: str) -> Iterator[Served]:
        """The previous weights are kept until these have answered, for the engine goes back to them if these do not
        load. Other runs' files in the folder stay."""
        directory = _written(policy, self._folder, f"{self.mark}-{label}")
        yield Served(directory.name)
        for ours in (*self._folder.glob(f"{self.mark}-*"), *self._folder.glob(f".{self.mark}-*")):
            if ours != directory:
                shutil.rmtree(ours, ignore_errors=True)


@contextmanager
def open_handover(
    settings: EvolveSettings, workers: Workers, store: VersionStore, version: str, say: Callable[[str], None]
) -> Iterator[Handover]:
    """The handover for the settings' kind of policy, which began as `version`."""
    if settings.rollout_operator is None or settings.policy == "lora":
        yield AdapterHandover(workers, store, version, run_id(settings.run))
        return
    engines = [url.strip() for url in settings.rollout_operator.split(",")]
    key, limit = settings.operator_key(), settings.max_answer_tokens
    with Workers(engines, key, store, settings.patience, say, overwritten=True, max_answer_tokens=limit) as rollout:
        folder = settings.handover or store.within("handover")
        yield WeightsHandover(rollout, folder, run_id(settings.run))


def _written(policy: Sampled, folder: Path, label: str) -> Path:
    """Writes a new directory atomically. Raises DiskFull."""
    name = f"{label}-{uuid4().hex[:8]}"
    part = folder / f".{name}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with writing(folder / name):
            policy.hand_over(part)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return part.rename(folder / name)
