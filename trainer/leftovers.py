"""A run's own folder and its own marks in the shared store: what a killed process left there is removed by the next.

Whatever the trainer makes in the store bears the run's id, so that no other run's is touched.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from service.versions.store import VersionStore
from trainer.files import PARTIAL, read_json, write_json
from trainer.workers.workers import Workers


@contextmanager
def alone_in(run: Path) -> Iterator[None]:
    """Keeps other trainers out of a folder. Raises ValueError if one is in it; a killed one is not."""
    try:
        with FileLock(run / ".lock", timeout=0):
            yield
    except Timeout:
        raise ValueError(f"another trainer is at work in {run}; wait for it, or give another folder") from None


def run_id(run: Path) -> str:
    """What the run's things in the store are marked with; made at the first call."""
    file = run / "id.json"
    if not file.exists():
        write_json(file, uuid4().hex[:8])
    return str(read_json(file))


def clear(run: Path, store: VersionStore, workers: Workers) -> None:
    """Removes what a killed process of this run left: halves of files, adapters, an unfinished candidate."""
    for part in (*run.glob(f".*{PARTIAL}"), *run.glob(f"round-*/**/.*{PARTIAL}")):
        part.unlink()
    mark = run_id(run)
    for adapter in (store.root / "adapters").glob(f"{mark}-*"):
        workers.remove_adapter(adapter.name)
        shutil.rmtree(adapter, ignore_errors=True)
    for folder in (".", "adapters", "versions"):
        for unfinished in (store.root / folder).glob(f".*{mark}-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
