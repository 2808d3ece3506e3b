"""How a checkpoint becomes a version of a store: by `evoquality serve --checkpoint` or `versions import`."""

from __future__ import annotations

import logging
from pathlib import Path

from service.contract import VersionInfo
from service.versions.hub import find_checkpoint
from service.versions.store import VersionStore, content_id

log = logging.getLogger(__name__)


def import_checkpoint(store: VersionStore, given: str, profile: str) -> VersionInfo:
    """Adds a checkpoint directory or a model of the hub, and makes it active if the store has no active version.

    One that the store has already is not copied again, and not fetched again if `given` names the hub's commit. Raises
    ValueError if it can be found nowhere or is there with another profile; VersionError, OSError.
    """
    info = _of_commit(store, given) or _read(store, given, profile)
    if info.profile != profile:
        raise ValueError(f"the store has this checkpoint as {info.id} already, with the profile {info.profile}")
    if store.active() is None:
        store.activate(info.id)
    return info


def _of_commit(store: VersionStore, given: str) -> VersionInfo | None:
    """What a commit of the hub's became before."""
    if Path(given).is_dir() or "@" not in given:
        return None
    return next((info for info in store.list() if info.origin == given), None)


def _read(store: VersionStore, given: str, profile: str) -> VersionInfo:
    checkpoint = find_checkpoint(given)
    log.info("reading %s", given)
    known = content_id(checkpoint.path)
    if store.path(known).is_dir():
        return store.info(known)
    log.info("copying %s into the store", given)
    return store.add(checkpoint.path, parent=None, profile=profile, origin=checkpoint.origin)
