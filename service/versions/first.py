"""The version with which a service starts."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import cast

from tenacity import Retrying, retry_if_result, wait_fixed

from evoquality.contract import VersionInfo
from service.configuration.settings import Settings
from service.errors import ProblemError, UserError
from service.prompts import PROFILES, max_tokens
from service.versions.importing import import_checkpoint
from service.versions.preflight import check_servable
from service.versions.store import Active, VersionStore

log = logging.getLogger(__name__)


def check_beginning(store: VersionStore, settings: Settings) -> None:
    """Raises UserError if there is no version to start with, and nothing to make one of. Writes nothing."""
    with suppress(OSError):  # `first_version` names it
        if settings.moves_pointer and settings.checkpoint is None and store.active() is None:
            raise UserError(
                f"the store {settings.store} has no active version: start with --checkpoint FOLDER, or run "
                "`evoquality versions import`"
            )


def first_version(store: VersionStore, settings: Settings) -> VersionInfo:
    """The active version, or of an empty store `settings.checkpoint`, imported and activated.

    Rollout engines and followers wait for a first version. A follower falls back to the previous version if the active
    one cannot be served. Raises UserError if there is no version, or if it cannot be read or served.
    """
    check_beginning(store, settings)
    try:
        info = _followed(store, settings.follow_seconds) if settings.follow else _active(store, settings)
    except ProblemError as failure:
        raise UserError(str(failure)) from failure
    except OSError as error:
        raise UserError(f"the store {store.root} cannot be used: {error}") from error
    answer = max_tokens("score", PROFILES[info.profile], settings.max_answer_tokens)
    if answer >= settings.max_model_len:
        raise UserError(
            f"max_model_len is {settings.max_model_len}, but answers of the profile {info.profile} take up to {answer} "
            f"tokens (max_answer_tokens) beside the question and the pictures: set at least {4 * answer}"
        )
    return info


def within_positions(settings: Settings, weights: Path) -> Settings:
    """The settings, with a default `max_model_len` of no more tokens than the checkpoint in `weights` has positions."""
    config = json.loads((weights / "config.json").read_bytes())
    positions = (config.get("text_config") or config).get("max_position_embeddings", settings.max_model_len)
    if "max_model_len" in settings.model_fields_set or positions >= settings.max_model_len:
        return settings
    return settings.model_copy(update={"max_model_len": positions})


def _active(store: VersionStore, settings: Settings) -> VersionInfo:
    active = _awaited(store, settings.follow_seconds) if settings.role == "rollout" else store.active()
    if active is None:
        info = import_checkpoint(store, cast(str, settings.checkpoint), settings.profile)
        active = store.activate(info.id, if_none=True)
    store.verify(active.version)
    return store.info(active.version)


def _followed(store: VersionStore, seconds: float) -> VersionInfo:
    """The active version, or the previous one, which replicas that did not restart serve too."""
    active = _awaited(store, seconds)
    try:
        return check_servable(store, active.version)
    except ProblemError as failure:
        before = _if_servable(store, active.previous)
        if before is None:
            raise
        log.error("version %s cannot serve (%s): beginning with the one before, %s", active.version, failure, before.id)
        return before


def _if_servable(store: VersionStore, version: str | None) -> VersionInfo | None:
    try:
        return check_servable(store, version) if version else None
    except ProblemError:
        return None


def _awaited(store: VersionStore, seconds: float) -> Active:
    """Waits for the store's pointer."""
    if active := store.active():
        return active
    log.warning("the store %s has no active version yet; waiting for `evoquality versions import`", store.root)
    awaiting = Retrying(retry=retry_if_result(lambda active: active is None), wait=wait_fixed(seconds))
    return cast(Active, awaiting(store.active))
