"""What the writers of a store share: locks, the removal of what killed ones left, paths without links, failures."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from service.errors import LinkInStore, StoreFailure, TooBusy

LOCK_SECONDS = 10.0
"""Time to wait for another process that writes a small file."""
FOLDERS = ("refused", "benchmarks", "canaries")

log = logging.getLogger(__name__)


def without_links(root: Path, *parts: str) -> Path:
    """A path below a resolved folder. Raises LinkInStore if it is a link or leads through one."""
    path = root.joinpath(*parts)
    if path.resolve() != path:
        raise LinkInStore(f"{'/'.join(parts)} is a link or leads through one; put the files themselves there.")
    return path


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Lets one process write small files, and removes what killed ones left. Raises OSError, LinkInStore."""
    with FileLock(without_links(root, "write.lock"), timeout=LOCK_SECONDS):
        for folder, pattern in ((".", ".ACTIVE-*"), *((folder, ".v*.json-*") for folder in FOLDERS)):
            for leftover in without_links(root, folder).glob(pattern):
                leftover.unlink()
        yield


@contextmanager
def written() -> Iterator[None]:
    """Makes a failed write a problem. Raises StoreFailure; TooBusy if another process keeps the lock."""
    try:
        yield
    except Timeout as held:
        name = Path(held.lock_file).name
        raise TooBusy(f"Another process holds the store's lock {name}; nothing changed. Try again.") from None
    except OSError as error:
        reason = error.strerror or "unknown"
        log.error("the store could not be written: %s", error)
        raise StoreFailure(f"The store could not be written ({reason}); nothing changed.") from error


@contextmanager
def adding(root: Path, versions: Path, timeout: float = -1) -> Iterator[None]:
    """Lets one process add a version, and removes what killed ones left. Raises Timeout."""
    lock = FileLock(without_links(root, "adding.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if timeout == 0:
            raise
        log.info("waiting for another process that adds a version")
        lock.acquire()
    try:
        for leftover in versions.glob(".adding-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
    finally:
        lock.release()
