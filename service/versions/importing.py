"""How a checkpoint becomes a version of a store: by `evoquality serve --checkpoint` or `versions import`."""

from __future__ import annotations

import logging

from service.contract import VersionInfo
from service.versions.hub import find_checkpoint
from service.versions.store import VersionStore, content_id

log = logging.getLogger(__name__)


def import_checkpoint(store: VersionStore, given: str, profile: str) -> VersionInfo:
    """Adds a checkpoint directory or a model of the hub, and makes it active if the store has no active version.

    One that the store has already is not copied again. Raises ValueError if it can be found nowhere or is there with
    another profile; VersionError, OSError.
    """
    checkpoint = find_checkpoint(given)
    log.info("reading %s", given)
    known = content_id(checkpoint.path)
    if store.path(known).is_dir():
        info = store.info(known)
        if info.profile != profile:
            raise ValueError(f"the store has this checkpoint as {known} already, with the profile {info.profile}")
    else:
        log.info("copying %s into the store", given)
        info = store.add(checkpoint.path, parent=None, profile=profile, origin=checkpoint.origin)
    if store.active() is None:
        store.activate(info.id)
    return info
