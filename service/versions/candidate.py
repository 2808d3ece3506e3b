"""What a version must show before it may be loaded in place of another, or the pointer may name it."""

from __future__ import annotations

from pathlib import Path

from service.contract import VersionInfo
from service.errors import VersionError
from service.versions import refusals
from service.versions.preflight import check_weights
from service.versions.store import VersionStore


def check_servable(store: VersionStore, version: str) -> VersionInfo:
    """Reads every file of a version, and the mark that may lie against it.

    Raises UnknownVersion, or VersionError (`refused`, and as `VersionStore.verify` does).
    """
    info = store.info(version)
    if reason := refusals.reason(store, version):
        raise VersionError("refused", f"{reason}. Remove its mark in the store's folder `refused` to allow it")
    store.verify(version)
    return info


def check_candidate(store: VersionStore, version: str, running: Path) -> VersionInfo:
    """Refuses a version that must not serve or could not replace `running`, in seconds for each gigabyte.

    Raises as `check_servable` and `check_weights` do.
    """
    info = check_servable(store, version)
    check_weights(store.path(version), running)
    return info
