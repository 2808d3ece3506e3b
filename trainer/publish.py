"""The policy's way to the engine: adapters while it trains, a candidate version when it is done."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from service.client import Client, ServiceError
from service.contract import VersionInfo
from service.versions.store import VersionStore
from trainer.policy import Policy


@contextmanager
def served_adapter(policy: Policy, store: VersionStore, operator: Client, label: str) -> Iterator[str]:
    """Serves the policy as it is now, as an adapter beside the active version, for the length of the block.

    Every adapter has a name never used before: an engine that is given new weights under an old name goes on
    serving the old ones. Yields the name.
    """
    name = f"{label}-{uuid4().hex[:8]}"
    beside = store.root / "adapters" / f".{name}"
    policy.save_adapter(beside)
    beside.rename(store.root / "adapters" / name)
    try:
        operator.load_adapter(name)
        yield name
    finally:
        try:
            operator.unload_adapter(name)
        except ServiceError as error:  # a service that was restarted does not know it any more
            if error.problem.status != 404:
                raise
        shutil.rmtree(store.root / "adapters" / name, ignore_errors=True)


def add_candidate(
    policy: Policy,
    store: VersionStore,
    *,
    parent: str,
    profile: str,
    origin: str,
    metrics: dict[str, float],
    config: dict[str, Any],
) -> VersionInfo:
    """Merges the adapter into a checkpoint that stands alone and adds it to the store. Ends the policy's use."""
    with TemporaryDirectory(dir=store.root, prefix=".candidate-") as folder:
        policy.save_merged(Path(folder))
        return store.add(Path(folder), parent=parent, profile=profile, origin=origin, metrics=metrics, config=config)
