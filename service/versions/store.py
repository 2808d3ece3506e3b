"""The version store: immutable, content-addressed checkpoints on a shared volume.

    <store>/versions/<id>/      safetensors, processor, tokenizer, manifest.json; never changed
    <store>/ACTIVE              {"version", "previous"}, replaced atomically
    <store>/adapters/<name>/    the policy under training, one directory per adapter version
    <store>/refused/<id>.json   why a version must not serve; remove the file to allow it again
    <store>/benchmarks/<id>.json  results of a version on labelled sets
    <state>/canaries/<id>.json  what a version answered to the canaries when it first served here
    <state>/adapters.json       adapter names used so far and the last integer id; `state` is the store unless each
                                replica has its own folder

No path of the store may be a link or lead through one: what is deleted or written here lies here. A broken file is
named in the log and passed over. Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, FiniteFloat, field_validator

from evoquality.contract import BenchmarksRequest, ListedVersion, VersionInfo
from service.errors import (
    AdapterNameUsed,
    InvalidRequest,
    LinkInStore,
    ProblemError,
    ReadOnlyStore,
    StoreFailure,
    UnknownAdapter,
    UnknownVersion,
    UserError,
    VersionError,
)
from service.files import Unreadable, read_json, sync, write_atomically
from service.versions.contents import MANIFEST, check_unchanged, content_id, hashes, id_of, ignored
from service.versions.notes import N, Notes, children
from service.versions.writing import LOCK_SECONDS, adding, locked, without_links

_ID = re.compile(r"v[0-9a-f]{12}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

log = logging.getLogger(__name__)


class Manifest(VersionInfo):
    """`manifest.json`: the public facts about a version, the sha256 of its files, and the settings that made it."""

    metrics: dict[str, FiniteFloat]
    files: dict[str, str]
    config: dict[str, Any]

    @field_validator("created")
    @classmethod
    def _in_a_zone(cls, created: datetime) -> datetime:
        return created if created.tzinfo else created.replace(tzinfo=UTC)


class Active(BaseModel):
    """The pointer to the serving version, and the one before it."""

    version: str
    previous: str | None = None


class _Mark(BaseModel):
    reason: str


class _Adapters(BaseModel):
    model_config = ConfigDict(extra="allow")  # written back, with what a newer version added

    last_id: int = 0
    used: dict[str, int] = {}


class VersionStore:
    """Versions under `root`, which may be read-only. A replica writes its own files to `state`, by default `root`."""

    def __init__(self, root: Path, state: Path | None = None) -> None:
        self.root = root.resolve()
        self.state = state.resolve() if state else self.root
        self._known: dict[str, VersionInfo] = {}
        self._listed: dict[str, ListedVersion] = {}
        self._told: set[str] = set()
        self._pointer: Active | None = None
        self._marks = Notes(self.root, "refused", _Mark, self._tell)
        self._results = Notes(self.root, "benchmarks", BenchmarksRequest, self._tell)

    def within(self, *parts: str) -> Path:
        """A path of the store, existing or not. Raises LinkInStore if it is a link or leads through one."""
        return without_links(self.root, *parts)

    def add(
        self,
        source: Path,
        *,
        parent: str | None,
        profile: str,
        origin: str,
        metrics: Mapping[str, float] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> VersionInfo:
        """Copies the checkpoint in `source` into the store and returns its identity.

        Adding the same content twice gives the same version, with its first manifest. Copies one checkpoint at a time.
        Raises VersionError (`missing_directory`, `no_weights`, `unreadable_file`), LinkInStore.
        """
        if not source.is_dir():
            raise VersionError("missing_directory", "there is no checkpoint directory to add")
        if not any(source.glob("*.safetensors")):
            raise VersionError("no_weights", "the checkpoint has no safetensors file")
        known = content_id(source)
        if self.path(known).exists():
            return self.info(known)
        versions = self.within("versions")
        versions.mkdir(parents=True, exist_ok=True)
        with adding(self.root, versions):
            if self.path(known).exists():
                return self.info(known)
            beside = versions / f".adding-{source.name}-{uuid4().hex}"
            try:
                shutil.copytree(source, beside, copy_function=shutil.copyfile, ignore=ignored)
                files = hashes(beside)
                manifest = Manifest(
                    id=id_of(files),
                    parent=parent,
                    created=datetime.now(UTC),
                    profile=profile,
                    origin=origin,
                    metrics={name: value for name, value in (metrics or {}).items() if math.isfinite(value)},
                    files=files,
                    config=dict(config or {}),
                )
                (beside / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
                _sync_tree(beside)
                os.replace(beside, self.path(manifest.id))
                sync(versions)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
        return self.info(manifest.id)

    def verify(self, version: str) -> Manifest:
        """Checks every file against the manifest and the id.

        Raises UnknownVersion, LinkInStore, or VersionError (`hash_mismatch`, `unreadable_file`, `bad_manifest`).
        """
        manifest = self.manifest(version)
        check_unchanged(self.path(version), manifest.files)
        if id_of(manifest.files) != version:
            raise VersionError("hash_mismatch", f"{MANIFEST} belongs to another version")
        return manifest

    def manifest(self, version: str) -> Manifest:
        """The manifest of a version.

        Raises UnknownVersion, LinkInStore, or VersionError (`bad_manifest`, `hash_mismatch`).
        """
        try:
            manifest = read_json(self.path(version) / MANIFEST, Manifest)
        except FileNotFoundError:
            raise UnknownVersion("The store has no such version.") from None
        except Unreadable as reason:
            raise VersionError("bad_manifest", f"the manifest cannot be read: {reason}") from None
        if manifest.id != version:
            raise VersionError("hash_mismatch", f"{MANIFEST} names another version")
        return manifest

    def info(self, version: str) -> VersionInfo:
        """The public facts about a version. Raises as `manifest`."""
        manifest = self.manifest(version)
        return VersionInfo(**manifest.model_dump(include=set(VersionInfo.model_fields)))

    def list(self) -> Sequence[VersionInfo]:
        """All readable versions, oldest first. Manifests never change, so each is read once."""
        found = []
        for name in children(self.root / "versions"):
            if not _ID.fullmatch(name):
                continue
            try:
                if name not in self._known:
                    self._known[name] = self.info(name)
                found.append(self._known[name])
            except ProblemError as problem:
                self._tell(f"version {name}", problem)
        return sorted(found, key=lambda info: (info.created, info.id))

    def listed(self) -> Sequence[ListedVersion]:
        """All readable versions with their marks and results. Reads again only what has changed; one call at a time."""
        marks, results = self._marks.all(), self._results.all()
        return [self._shown(info, marks.get(info.id), results.get(info.id)) for info in self.list()]

    def _shown(
        self, info: VersionInfo, mark: _Mark | Unreadable | None, results: BenchmarksRequest | Unreadable | None
    ) -> ListedVersion:
        refused = _reason(mark)
        benchmarks = results.benchmarks if isinstance(results, BenchmarksRequest) else {}
        shown = self._listed.get(info.id)
        if shown is None or (shown.refused, shown.benchmarks) != (refused, benchmarks):
            shown = ListedVersion(**info.model_dump(), benchmarks=benchmarks, refused=refused)
            self._listed[info.id] = shown
        return shown

    def path(self, version: str) -> Path:
        """The directory of a version, existing or not. Raises UnknownVersion if it cannot be an id, LinkInStore."""
        if not _ID.fullmatch(version):
            raise UnknownVersion("The store has no such version.")
        return self.within("versions", version)

    def active(self) -> Active | None:
        """The pointer, or None in a new store. Raises UserError if it holds something else."""
        try:
            self._pointer = read_json(self.root / "ACTIVE", Active)
        except FileNotFoundError:
            return None
        except Unreadable as reason:
            raise UserError(
                f"the pointer {self.root / 'ACTIVE'} cannot be read ({reason}): promote a version, which writes it anew"
            ) from None
        return self._pointer

    def pointer(self) -> Active | None:
        """As `active`, but of a broken pointer the last value that was read here, or None."""
        return self._read_pointer()[0]

    def activate(self, version: str, *, if_none: bool = False) -> Active:
        """Points ACTIVE at `version` and keeps the one before; with `if_none` only in a store without a pointer.

        Checks only that the version exists. Raises UnknownVersion, LinkInStore, ReadOnlyStore, OSError.
        """
        self.manifest(version)

        def moved() -> tuple[Active, bool]:
            """The pointer as it is to be, and whether it is written already."""
            before, whole = self._read_pointer()
            if before and (if_none or before.version == version):
                return before, whole
            return Active(version=version, previous=before.version if before else None), False

        now, written = moved()
        if written:
            return now
        self.check_writable()
        with locked(self.root):
            now, written = moved()
            if not written:
                write_atomically(self.root / "ACTIVE", now.model_dump_json() + "\n")
        self._pointer = now
        return now

    def _read_pointer(self) -> tuple[Active | None, bool]:
        """The pointer, or of a broken one the last value that was read here; and whether it is whole."""
        try:
            return self.active(), True
        except UserError as broken:
            self._tell("the pointer", broken)
            return self._pointer, False

    def previous(self) -> str:
        """The version to which a rollback leads. Raises UnknownVersion if there is none."""
        active = self.pointer()
        if active is None or active.previous is None:
            raise UnknownVersion("There is no previous version to go back to.")
        return active.previous

    def rollback(self) -> Active:
        """Points ACTIVE at the previous version. A second rollback leads forward again."""
        return self.activate(self.previous())

    def check_writable(self) -> None:
        """Raises ReadOnlyStore if nothing can be written here."""
        if not _is_writable(self.root):
            raise ReadOnlyStore("The store is read-only here: ask a replica that can write it, or mount it writable.")

    def refusal(self, version: str) -> str | None:
        """The reason why a version must not serve; None if it may."""
        return _reason(self._marks.of(version))

    def refuse(self, version: str, reason: str) -> None:
        """Marks a version as one that must not serve. Raises UnknownVersion, LinkInStore, OSError."""
        self.manifest(version)
        self._marks.write(version, _Mark(reason=reason))

    def record_benchmarks(self, version: str, measured: BenchmarksRequest) -> None:
        """Replaces the results of a version. Raises UnknownVersion, LinkInStore, ReadOnlyStore, OSError."""
        self.check_writable()
        self.manifest(version)
        self._results.write(version, measured)

    def canaries(self, version: str, model: type[N]) -> N | None:
        """What a version answered to the canaries when it first served here; None if that is not known."""
        found = Notes(self.state, "canaries", model, self._tell).of(version)
        return None if isinstance(found, Unreadable) else found

    def record_canaries(self, version: str, answers: BaseModel) -> None:
        """Keeps what a version answers to the canaries. Raises OSError, LinkInStore."""
        Notes(self.state, "canaries", type(answers), self._tell).write(version, answers)

    def sweep(self) -> None:
        """Removes what killed writers left, where it may. Raises OSError, LinkInStore."""
        for root in filter(_is_writable, {self.root, self.state}):
            with locked(root):
                pass
        versions = self.within("versions")
        if _is_writable(versions) and any(versions.glob(".adding-*")):
            with suppress(Timeout), adding(self.root, versions, timeout=0):
                pass

    def _tell(self, what: str, reason: Exception) -> None:
        """Names a broken entry in the log, once."""
        if (told := f"{what} is passed over: {reason}") not in self._told:
            self._told.add(told)
            log.warning("%s", told)

    def adapter_path(self, name: str) -> Path:
        """The directory of an adapter. Raises UnknownAdapter if it is missing or cannot be a name; LinkInStore."""
        if not _NAME.fullmatch(name):
            raise UnknownAdapter("There is no such adapter.")
        path = self.within("adapters", name)
        if not path.is_dir():
            raise UnknownAdapter("There is no such adapter directory in the store.")
        return path

    def delete_adapter(self, name: str) -> None:
        """Deletes an adapter's directory, unless it is gone, is a link by now, or the store is read-only."""
        with suppress(UnknownAdapter, LinkInStore):
            shutil.rmtree(self.adapter_path(name), ignore_errors=True)

    def new_adapter_id(self, name: str) -> int:
        """A new integer id, written to disk before it is returned.

        Raises AdapterNameUsed if `name` ever had one: the engine would silently serve the old adapter. StoreFailure if
        the ids given so far cannot be read; OSError.
        """
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                "Adapter names hold up to 100 letters, digits, `.`, `_`, `-`, and begin with a letter or digit."
            )
        self.state.mkdir(parents=True, exist_ok=True)
        file = without_links(self.state, "adapters.json")
        with FileLock(without_links(self.state, "adapters.lock"), timeout=LOCK_SECONDS):
            for leftover in self.state.glob(f".{file.name}-*"):
                leftover.unlink()
            try:
                known = read_json(file, _Adapters)
            except FileNotFoundError:
                known = _Adapters()
            except Unreadable as reason:
                raise StoreFailure(
                    f"The ids of adapters given so far cannot be read from {file.name} ({reason}): restore it, or "
                    "remove it and restart every service that shares its folder."
                ) from None
            if name in known.used:
                raise AdapterNameUsed("This adapter name was used before; take a new one.")
            known.last_id += 1
            known.used[name] = known.last_id
            write_atomically(file, known.model_dump_json() + "\n")
        return known.last_id


def _is_writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK)


def _reason(mark: _Mark | Unreadable | None) -> str | None:
    if isinstance(mark, Unreadable):
        return f"its mark cannot be read ({mark})"
    return mark.reason if mark else None


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        sync(path)
