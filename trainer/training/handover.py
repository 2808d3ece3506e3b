"""How the policy under training reaches the engine that samples its rollouts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from service.client import Client, ServiceError
from service.versions.store import VersionStore
from trainer.training.policy import Policy
from trainer.training.served import Served


@contextmanager
def served_adapter(policy: Policy, store: VersionStore, operator: Client, version: str, label: str) -> Iterator[Served]:
    """Serves the policy as it is now, as an adapter beside the active version, for the length of the block.

    Every adapter has a name never used before: an engine that is given new weights under an old name goes on
    serving the old ones.
    """
    name = f"{label}-{uuid4().hex[:8]}"
    beside = store.root / "adapters" / f".{name}"
    policy.save_adapter(beside)
    beside.rename(store.root / "adapters" / name)
    try:
        operator.load_adapter(name)
        yield Served(version, name)
    finally:
        try:
            operator.unload_adapter(name)
        except ServiceError as error:  # a service that was restarted does not know it any more
            if error.problem.status != 404:
                raise
        shutil.rmtree(store.root / "adapters" / name, ignore_errors=True)
