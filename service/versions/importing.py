"""Imports a checkpoint into a store, from a directory or the model hub.

Used by `evoquality serve --checkpoint` and `evoquality versions import`.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path

from evoquality.contract import VersionInfo
from service.errors import UserError, VersionError
from service.versions.contents import left_out
from service.versions.preflight import check_tensors, form
from service.versions.store import VersionStore

log = logging.getLogger(__name__)


def import_checkpoint(store: VersionStore, given: str, profile: str) -> VersionInfo:
    """Adds a checkpoint directory or a model of the hub, and makes it active if the store has no active version.

    A checkpoint that the store has already is not copied again, nor fetched again if `given` names the hub's commit.
    Raises UserError if it cannot be found, or if the store has it with another profile; VersionError, OSError.
    """
    info = _of_commit(store, given) or _read(store, given, profile)
    if info.profile != profile:
        raise UserError(f"the store has this checkpoint as {info.id} already, with the profile {info.profile}")
    store.activate(info.id, if_none=True)
    return info


def _of_commit(store: VersionStore, given: str) -> VersionInfo | None:
    """The version that was made of a commit of the hub before, or None."""
    if Path(given).is_dir() or "@" not in given:
        return None
    return next((info for info in store.list() if info.origin == given), None)


def _read(store: VersionStore, given: str, profile: str) -> VersionInfo:
    checkpoint = find_checkpoint(given)
    log.info("reading %s", given)
    if beside := left_out(checkpoint.path):
        log.info("left out of the version, because no engine reads it: %s", ", ".join(beside))
    check_tensors(checkpoint.path, form(checkpoint.path))  # what cannot be loaded again may not be the first either
    return store.add(checkpoint.path, parent=None, profile=profile, origin=checkpoint.origin)


_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_FILES = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.model")
"""Weights, configuration and tokenizer, without weights in other formats and without pictures."""
_IN_FOLDERS = "*/*"
"""A model of the hub is its files at the top; folders hold other formats, or the weights once more."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint's directory and origin."""

    path: Path
    origin: str


def find_checkpoint(given: str) -> Checkpoint:
    """The directory `given`, or the files of the hub's model of that name, downloaded if need be.

    Looks into the hub's cache (`HF_HOME`) and, unless `HF_HUB_OFFLINE` is set, at the hub.
    Raises UserError if it cannot be found; VersionError `missing_weights` if it is incomplete.
    """
    if Path(given).is_dir():
        return Checkpoint(Path(given), "imported")
    name = _NAME.fullmatch(given)
    if name is None:
        raise UserError(f"there is no checkpoint directory {given}, and a hub name has the form owner/model")
    found = _download(name[1], name[2])
    _check_complete(found)
    return Checkpoint(found, f"{name[1]}@{found.name}")


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*_FILES], ignore_patterns=_IN_FOLDERS))
    except LocalEntryNotFoundError:
        why = (
            "HF_HUB_OFFLINE keeps it from being downloaded" if constants.HF_HUB_OFFLINE else "the hub cannot be reached"
        )
    except HfHubHTTPError as error:
        why = f"the hub answers {error.response.status_code}; private and gated models want a token in HF_TOKEN"
    except OSError as error:
        why = f"it cannot be downloaded ({error.strerror or type(error).__name__})"
    revised = f"{name}@{revision}" if revision else name
    raise UserError(
        f"the checkpoint {revised} is neither a directory nor in the hub's cache {constants.HF_HUB_CACHE}, and {why}"
    )


def _check_complete(path: Path) -> None:
    """Refuses an interrupted download, which lacks some of the files that the index names."""
    index = path / "model.safetensors.index.json"
    if index.exists():
        files = set(json.loads(index.read_text())["weight_map"].values())
        if any(not (path / file).exists() for file in files):
            raise VersionError("missing_weights", "files that the checkpoint's index names are not there")
