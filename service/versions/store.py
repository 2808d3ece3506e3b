"""The version store: immutable, content-addressed checkpoints on a shared volume.

    <store>/versions/<id>/      safetensors, processor, tokenizer, manifest.json; never changed
    <store>/ACTIVE              {"version", "previous"}, replaced atomically
    <store>/adapters/<name>/    the policy under training, one directory per adapter version
    <store>/refused/<id>.json   why a version must not serve; remove the file to allow it again
    <store>/benchmarks/<id>.json  results of a version on labelled sets
    <state>/adapters.json       adapter names used so far and the last integer id; `state` is the store unless each
                                replica has its own folder

Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from evoquality.contract import Benchmark, BenchmarksRequest, VersionInfo
from service.errors import (
    AdapterNameUsed,
    InvalidRequest,
    ReadOnlyStore,
    TooBusy,
    UnknownAdapter,
    UnknownVersion,
    UserError,
    VersionError,
)
from service.files import sync, write_atomically

MANIFEST = "manifest.json"
_NOT_COPIED = (MANIFEST, ".*", "*.tmp")
_ID = re.compile(r"v[0-9a-f]{12}")
log = logging.getLogger(__name__)
_LOCK_SECONDS = 10.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Manifest(VersionInfo):
    """`manifest.json`: the public facts about a version, the sha256 of its files, and the settings that made it."""

    files: dict[str, str]
    config: dict[str, Any]


class Active(BaseModel):
    """The pointer to the serving version, and the one before it."""

    version: str
    previous: str | None = None


class _Adapters(BaseModel):
    last_id: int = 0
    used: dict[str, int] = {}


class VersionStore:
    """Versions under `root`, which may be read-only. A replica writes its own files to `state`, by default `root`."""

    def __init__(self, root: Path, state: Path | None = None) -> None:
        self.root = root.resolve()
        self.state = state.resolve() if state else self.root
        self._listed: dict[str, VersionInfo] = {}

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

        Adding the same content twice gives the same version, with its first manifest. Raises VersionError
        (`missing_directory`, `no_weights`).
        """
        if not source.is_dir():
            raise VersionError("missing_directory", "there is no checkpoint directory to add")
        if not any(source.glob("*.safetensors")):
            raise VersionError("no_weights", "the checkpoint has no safetensors file")
        (self.root / "versions").mkdir(parents=True, exist_ok=True)
        beside = self.root / "versions" / f".adding-{source.name}-{uuid4().hex}"
        try:
            ignore = shutil.ignore_patterns(*_NOT_COPIED)
            shutil.copytree(source, beside, copy_function=shutil.copyfile, ignore=ignore)
            files = _hashes(beside)
            manifest = Manifest(
                id=_content_id(files),
                parent=parent,
                created=datetime.now(UTC),
                profile=profile,
                origin=origin,
                metrics=dict(metrics or {}),
                files=files,
                config=dict(config or {}),
            )
            if not self.path(manifest.id).exists():
                (beside / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
                _sync_tree(beside)
                os.replace(beside, self.path(manifest.id))
                sync(self.root / "versions")
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return self.info(manifest.id)

    def verify(self, version: str) -> Manifest:
        """Checks every file against the manifest and the id.

        Raises UnknownVersion, or VersionError (`hash_mismatch`, `bad_manifest`).
        """
        manifest = self.manifest(version)
        actual = _hashes(self.path(version))
        if actual != manifest.files or _content_id(actual) != version or manifest.id != version:
            raise VersionError("hash_mismatch", "the files are not those the manifest names")
        return manifest

    def manifest(self, version: str) -> Manifest:
        """The manifest of a version. Raises UnknownVersion, or VersionError (`bad_manifest`)."""
        try:
            return Manifest.model_validate_json((self.path(version) / MANIFEST).read_bytes())
        except OSError:
            raise UnknownVersion("The store has no such version.") from None
        except ValidationError:
            raise VersionError("bad_manifest", "the manifest cannot be read") from None

    def info(self, version: str) -> VersionInfo:
        """The public facts about a version. Raises as `manifest`."""
        manifest = self.manifest(version)
        return VersionInfo(**manifest.model_dump(include=set(VersionInfo.model_fields)))

    def list(self) -> Sequence[VersionInfo]:
        """All readable versions, oldest first. Manifests never change, so each is read once."""
        found = []
        for folder in (self.root / "versions").glob("v*"):
            try:
                if folder.name not in self._listed:
                    self._listed[folder.name] = self.info(folder.name)
            except (UnknownVersion, VersionError):
                continue
            found.append(self._listed[folder.name])
        return sorted(found, key=lambda info: (info.created, info.id))

    def path(self, version: str) -> Path:
        """The directory of a version, existing or not. Raises UnknownVersion if it cannot be an id."""
        if not _ID.fullmatch(version):
            raise UnknownVersion("The store has no such version.")
        return self.root / "versions" / version

    def active(self) -> Active | None:
        """The pointer, or None in a new store. Raises OSError; UserError if it holds something else."""
        try:
            return Active.model_validate_json((self.root / "ACTIVE").read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            raise UserError(f"the pointer {self.root / 'ACTIVE'} cannot be read") from None

    def activate(self, version: str) -> Active:
        """Points ACTIVE at `version` and keeps the one before. Checks only that the version exists.

        Raises UnknownVersion, ReadOnlyStore.
        """
        self.manifest(version)
        before = self.active()
        if before and before.version == version:
            return before
        self.check_writable()
        now = Active(version=version, previous=before.version if before else None)
        write_atomically(self.root / "ACTIVE", now.model_dump_json() + "\n")
        return now

    def previous(self) -> str:
        """The version to which a rollback leads. Raises UnknownVersion if there is none."""
        active = self.active()
        if active is None or active.previous is None:
            raise UnknownVersion("There is no previous version to go back to.")
        return active.previous

    def rollback(self) -> Active:
        """Points ACTIVE at the previous version. A second rollback leads forward again."""
        return self.activate(self.previous())

    def check_writable(self) -> None:
        """Raises ReadOnlyStore if nothing can be written here."""
        if not os.access(self.root, os.W_OK):
            raise ReadOnlyStore("The store is read-only here: ask a replica that can write it, or mount it writable.")

    def refusal(self, version: str) -> str | None:
        """The reason why a version must not serve; None if it may."""
        try:
            return str(json.loads((self.root / "refused" / f"{version}.json").read_bytes())["reason"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return "its mark cannot be read"

    def refuse(self, version: str, reason: str) -> None:
        """Marks a version as one that must not serve. Raises UnknownVersion."""
        self._annotate("refused", version, json.dumps({"reason": reason}))

    def benchmarks(self, version: str) -> dict[str, Benchmark]:
        """Results by the name of the labelled set; empty if there are none, or none that can be read."""
        try:
            text = (self.root / "benchmarks" / f"{version}.json").read_bytes()
            return BenchmarksRequest.model_validate_json(text).benchmarks
        except FileNotFoundError:
            return {}
        except ValidationError:
            log.warning("the benchmarks of version %s cannot be read", version)
            return {}

    def record_benchmarks(self, version: str, measured: BenchmarksRequest) -> None:
        """Replaces the results of a version. Raises UnknownVersion, ReadOnlyStore."""
        self.check_writable()
        self._annotate("benchmarks", version, measured.model_dump_json())

    def _annotate(self, folder: str, version: str, text: str) -> None:
        """Writes a file about a version beside it: the version itself never changes."""
        self.manifest(version)
        (self.root / folder).mkdir(exist_ok=True)
        write_atomically(self.root / folder / f"{version}.json", text + "\n")

    def adapter_path(self, name: str) -> Path:
        """The directory of an adapter. Raises UnknownAdapter if it is missing or cannot be a name."""
        if not _NAME.fullmatch(name):
            raise UnknownAdapter("There is no such adapter.")
        path = self.root / "adapters" / name
        if not path.is_dir():
            raise UnknownAdapter("There is no such adapter directory in the store.")
        return path

    def new_adapter_id(self, name: str) -> int:
        """A new integer id, written to disk before it is returned.

        Raises AdapterNameUsed if `name` ever had one: the engine would silently serve the old adapter; TooBusy if
        another process keeps the lock.
        """
        if not _NAME.fullmatch(name):
            raise InvalidRequest("An adapter cannot have this name.")
        self.state.mkdir(parents=True, exist_ok=True)
        file = self.state / "adapters.json"
        with _locked(self.state / "adapters.lock"):  # replicas may share the folder
            known = _Adapters.model_validate_json(file.read_bytes()) if file.exists() else _Adapters()
            if name in known.used:
                raise AdapterNameUsed("This adapter name was used before; take a new one.")
            known.last_id += 1
            known.used[name] = known.last_id
            write_atomically(file, known.model_dump_json() + "\n")
        return known.last_id


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    lock = FileLock(file)
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout:
        raise TooBusy(f"Another process has held the lock {file.name} for {_LOCK_SECONDS:g} s; try again.") from None
    try:
        yield
    finally:
        lock.release()


def content_id(source: Path) -> str:
    """The id of the version that `VersionStore.add` makes of a checkpoint directory."""
    return _content_id(_hashes(source, _NOT_COPIED))


def _hashes(folder: Path, ignored: Sequence[str] = (MANIFEST,)) -> dict[str, str]:
    """The sha256 of every file below `folder` by relative name, except files that match an `ignored` pattern."""

    def counts(path: Path) -> bool:
        parts = path.relative_to(folder).parts
        return path.is_file() and not any(fnmatch(part, pattern) for part in parts for pattern in ignored)

    files = sorted(path for path in folder.rglob("*") if counts(path))
    digests = {}
    for file in files:
        with file.open("rb") as stream:
            digests[file.relative_to(folder).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests


def _content_id(files: Mapping[str, str]) -> str:
    return "v" + hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()[:12]


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        sync(path)
