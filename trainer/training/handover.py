"""How the policy under training reaches the engine that samples its rollouts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from service.versions.store import VersionStore
from trainer.training.policy import Policy
from trainer.training.served import Served
from trainer.workers.workers import Workers


@contextmanager
def served_adapter(policy: Policy, store: VersionStore, workers: Workers, version: str, label: str) -> Iterator[Served]:
    """Serves the policy as it is now, as an adapter beside the active version, for the length of the block.

    Every adapter has a name never used before: an engine that is given new weights under an old name goes on
    serving the old ones.
    """
    name = f"{label}-{uuid4().hex[:8]}"
    beside = store.root / "adapters" / f".{name}"
    policy.hand_over(beside)
    beside.rename(store.root / "adapters" / name)
    try:
        workers.load_adapter(name)
        yield Served(version, name)
    finally:
        workers.unload_adapter(name)
        shutil.rmtree(store.root / "adapters" / name, ignore_errors=True)
