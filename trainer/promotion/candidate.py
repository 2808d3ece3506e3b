"""The trained policy as a version of the store."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from evoquality.contract import VersionInfo
from service.versions.store import VersionStore
from trainer.files import writing
from trainer.training.learner import Learner


def add_candidate(
    learner: Learner,
    store: VersionStore,
    *,
    label: str,
    parent: str,
    profile: str,
    origin: str,
    metrics: dict[str, float],
    config: dict[str, Any],
) -> VersionInfo:
    """Writes a checkpoint that stands alone and adds it to the store.

    `label` begins the name of the folder it is made in. Raises DiskFull.
    """
    with writing(store.root / label), TemporaryDirectory(dir=store.root, prefix=f".{label}-") as folder:
        learner.save_checkpoint(Path(folder))
        return store.add(Path(folder), parent=parent, profile=profile, origin=origin, metrics=metrics, config=config)
