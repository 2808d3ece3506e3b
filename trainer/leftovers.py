"""A run's own folder and its own files in the shared store: a trainer locks them, and removes the leftovers of a killed
one.

Everything that the trainer makes in the store bears the run's id, so that other runs' files stay.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from service.files import PARTIAL
from service.versions.store import VersionStore
from trainer.errors import Occupied, UserError
from trainer.files import named, read_json, write_json
from trainer.workers.workers import Workers


@contextmanager
def folder_lock(folder: Path, patience: float = 0, say: Callable[[str], None] = print) -> Iterator[None]:
    """Keeps other trainers out of a folder (a run's, a store) for the block. The lock of a killed trainer is free.

    Raises:
        Occupied: another trainer holds the folder, and still does after `patience` seconds.
        UserError: there is no such folder, or it cannot be written.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; name one that exists")
    lock = FileLock(folder / ".trainer.lock")
    try:
        with named(folder, "the folder"):
            _acquire(
                lock, patience, lambda: say(f"another trainer is at work in {folder}: waiting for {patience:.0f} s")
            )
    except Timeout:
        raise Occupied(
            f"another trainer is at work in {folder}; start this one again when that one has ended"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, patience: float, report: Callable[[], None]) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if patience:
            report()
        lock.acquire(timeout=patience)


def run_id(run: Path) -> str:
    """The mark of the run's files in the store; made at the first call."""
    file = run / "id.json"
    if not file.exists():
        write_json(file, uuid4().hex[:8])
    return str(read_json(file))


def clear(run: Path, store: VersionStore, workers: Workers) -> None:
    """Removes the leftovers of a killed process of this run: partial files, adapters, an unfinished candidate."""
    for part in (*run.glob(f".*{PARTIAL}"), *run.glob(f"round-*/**/.*{PARTIAL}")):
        part.unlink()
    mark = run_id(run)
    for adapter in store.within("adapters").glob(f"{mark}-*"):
        workers.remove_adapter(adapter.name)
        shutil.rmtree(adapter, ignore_errors=True)
    for folder in (".", "adapters", "versions"):
        for unfinished in store.within(folder).glob(f".*{mark}-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
