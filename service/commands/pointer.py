"""Imports, promotions and rollbacks on a store's folder, without asking a service."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from evoquality.contract import VersionInfo
from service.commands.common import err, out, stop
from service.errors import ProblemError, UserError
from service.versions.importing import import_checkpoint
from service.versions.preflight import Form, check_candidate, form
from service.versions.store import Active, VersionStore


@contextmanager
def _refused(undone: str) -> Iterator[None]:
    """Makes a refusal end the command with one sentence, which begins with what was not done."""
    try:
        yield
    except (UserError, OSError, ProblemError) as error:
        stop(f"{undone}: {_first(error)}")


def _first(error: Exception) -> object:
    """The first of the messages that copying a folder gives for each of its files."""
    return error.args[0][0][2] if isinstance(error, shutil.Error) else error


@_refused("Nothing was imported")
def add(folder: Path, checkpoint: str, profile: str) -> VersionInfo:
    """Adds a checkpoint, and makes it active if the store has no active version."""
    err.print(
        f"Reading {checkpoint}, and copying it into {folder} unless it is there already.", soft_wrap=True, markup=False
    )
    return import_checkpoint(VersionStore(folder), checkpoint, profile)


@_refused("The store's pointer was not moved")
def promote(folder: Path, version: str) -> Active:
    """Points at a version after checking that it can replace what serves."""
    return _move(_existing(folder), version)


def _existing(folder: Path) -> VersionStore:
    if not (folder / "versions").is_dir():
        raise UserError(f"{folder} is not a version store: it has no folder `versions`")
    return VersionStore(folder)


def _serving(store: VersionStore) -> Form | None:
    """The form of what serves: the active version, or the one before, on which replicas stay if that is broken."""
    pointer = store.pointer()
    for version in (pointer.version, pointer.previous) if pointer else ():
        with suppress(ProblemError):
            return form(store.path(store.verify(version or "").id))
    return None


@_refused("The store's pointer was not moved")
def rollback(folder: Path) -> Active:
    """Points at the previous version, under the same conditions as a promotion."""
    store = _existing(folder)
    return _move(store, store.previous())


def _move(store: VersionStore, version: str) -> Active:
    err.print(f"Checking the files of {version}.")
    check_candidate(store, version, _serving(store) or form(store.path(version)))
    return store.activate(version)


def show(active: Active, as_json: bool) -> None:
    """Prints the new pointer."""
    if as_json:
        print(active.model_dump_json())
    else:
        out.print(f"{active.version} is the active version (before: {active.previous}).")
