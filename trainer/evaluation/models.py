"""Models that `--models` can name: the running service, a version of the store, a checkpoint folder, a hub name."""

from __future__ import annotations

import re
import shlex
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from httpx import TransportError

from evoquality import Client
from service.prompts import PROFILES
from service.versions.contents import content_id
from service.versions.store import VersionStore
from trainer.errors import UserError
from trainer.progress import Stages
from trainer.serving import serving
from trainer.settings.evaluate import EvaluateSettings

_VERSION = re.compile(r"v[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Model(ABC):
    """One model to evaluate, and how it is served."""

    name: str
    """Name given with `--models`."""
    settings: EvaluateSettings

    @property
    def folder(self) -> Path:
        """Folder of its predictions, one file per benchmark."""
        return self.settings.out / "predictions" / re.sub(r"[^\w.@-]+", "--", self._place).strip("-.")

    @abstractmethod
    def version(self) -> str | None:
        """Version id that its predictions must have; None if unknown before it is started."""

    def known(self) -> dict[str, str]:
        """Settings of its service that answers depend on, as far as they are set here."""
        return {"dtype": self.settings.dtype} if self.settings.dtype not in (None, "auto") else {}

    @abstractmethod
    def served(self, stages: Stages) -> AbstractContextManager[str]:
        """Address of a service that serves it, until the block ends. Raises as `serving`."""

    @property
    def _place(self) -> str:
        """Origin, independent of how it is named."""
        return self.name


class Serving(Model):
    """The model that the running service serves."""

    def version(self) -> str | None:
        """None if the service does not answer."""
        try:
            with Client(self.settings.service, self.settings.key) as client:
                return client.info().version
        except TransportError:
            return None

    def known(self) -> dict[str, str]:
        """Nothing: they were set when the service was started."""
        return {}

    @contextmanager
    def served(self, stages: Stages) -> Iterator[str]:
        """The running service's address."""
        yield self.settings.service


class Version(Model):
    """A version of the store, active or not."""

    def version(self) -> str:
        """Its id."""
        return self.name

    @contextmanager
    def served(self, stages: Stages) -> Iterator[str]:
        """Starts a service on a temporary store in which it is active. Raises UserError for an unknown version."""
        weights = self.settings.store / "versions" / self.name
        if not weights.is_dir():
            raise UserError(f"the store {self.settings.store} has no version {self.name}; give its store with --store")
        with _empty_store(self.settings.out) as store:
            (store / "versions").mkdir(parents=True)
            (store / "versions" / self.name).symlink_to(weights.resolve())
            VersionStore(store).activate(self.name)
            with _started(self, store, stages) as url:
                yield url


class Checkpoint(Model):
    """A checkpoint folder, or a name on the model hub."""

    @property
    def path(self) -> str:
        """Path or hub name without a leading profile."""
        profile, colon, rest = self.name.partition(":")
        return rest if colon and profile in PROFILES else self.name

    @property
    def profile(self) -> str:
        """Its answer profile."""
        return self.settings.profile if self.path == self.name else self.name.partition(":")[0]

    @property
    def _place(self) -> str:
        folder = Path(self.path)
        return f"{self.profile}:{folder.resolve()}" if folder.is_dir() else self.name

    def version(self) -> str | None:
        """Content id of the folder; None for a hub name."""
        return content_id(Path(self.path)) if Path(self.path).is_dir() else None

    def known(self) -> dict[str, str]:
        """With its answer profile."""
        return {**Model.known(self), "profile": self.profile}

    @contextmanager
    def served(self, stages: Stages) -> Iterator[str]:
        """Starts a service, which copies it into a temporary store."""
        flags = ("--checkpoint", self.path, "--profile", self.profile)
        with _empty_store(self.settings.out) as store, _started(self, store, stages, *flags) as url:
            yield url


def find(name: str, settings: EvaluateSettings) -> Model:
    """The model of a name: `serving`, a version id, or else a checkpoint."""
    kind = Serving if name == "serving" else Version if _VERSION.fullmatch(name) else Checkpoint
    return kind(name, settings)


@contextmanager
def _started(model: Model, store: Path, stages: Stages, *flags: str) -> Iterator[str]:
    chosen = model.settings
    dtype = ("--dtype", chosen.dtype) if chosen.dtype else ()
    log = chosen.out / "logs" / f"{model.folder.name}.log"
    every = (*flags, *dtype, *shlex.split(chosen.serve_flags), "--log-format", "text")
    with ExitStack() as stack:
        with stages.stage(f"{model.name} starts", total=None):
            url, _ = stack.enter_context(serving(store, log, *every))
        yield url


@contextmanager
def _empty_store(out: Path) -> Iterator[Path]:
    """An empty store beside the results, removed at the end; removes that of a killed run first."""
    store = out / ".store"
    shutil.rmtree(store, ignore_errors=True)
    try:
        yield store
    finally:
        shutil.rmtree(store, ignore_errors=True)
