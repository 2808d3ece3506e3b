"""A checkpoint by its name on the hub, out of the hub's cache as it lies on disk. No hub is asked."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from huggingface_hub import constants

from evoquality.contract import VersionInfo
from service.configuration.settings import Settings
from service.errors import UserError
from service.versions.first import first_version
from service.versions.store import VersionStore
from tests.service.conftest import checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "someone/Tiny-VL"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with one model: named blobs, a snapshot of links to them, a ref."""
    home = tmp_path / "home"
    model = home / "hub" / f"models--{NAME.replace('/', '--')}"
    snapshot = model / "snapshots" / COMMIT
    for folder in (snapshot, model / "blobs", model / "refs"):
        folder.mkdir(parents=True)
    for number, file in enumerate(sorted(checkpoint(tmp_path / "source", 1).iterdir())):
        blob = file.rename(model / "blobs" / str(number))
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    (model / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))  # it read the environment once
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return home


def start(store: Path, name: str) -> None:
    settings = Settings(store=store, checkpoint=name, profile="evoquality", max_model_len=4096)
    first_version(VersionStore(store), settings)


def begun(store: Path) -> VersionInfo:
    versions = VersionStore(store)
    active = versions.active()
    assert active
    versions.verify(active.version)
    return versions.info(active.version)


@pytest.mark.parametrize("name", [NAME, f"{NAME}@main", f"{NAME}@{COMMIT}"])
def test_a_cached_model_begins_the_store_with_its_profile(home: Path, tmp_path: Path, name: str):
    start(tmp_path / "store", name)
    version = begun(tmp_path / "store")
    assert (version.origin, version.profile) == (f"{NAME}@{COMMIT}", "evoquality")
    files = list((tmp_path / "store" / "versions" / version.id).iterdir())
    assert {file.name for file in files} == {"config.json", "model.safetensors", "manifest.json"}
    assert not [file for file in files if file.is_symlink()]


def test_what_is_neither_here_nor_in_the_cache_is_told_with_what_keeps_it_away(home: Path, tmp_path: Path):
    with pytest.raises(UserError) as refusal:
        start(tmp_path / "store", "someone/Else")
    for part in ("someone/Else", str(home / "hub"), "HF_HUB_OFFLINE"):
        assert part in str(refusal.value)


def test_an_unknown_revision_is_told(home: Path, tmp_path: Path):
    with pytest.raises(UserError, match=f"{NAME}@v2 is neither"):
        start(tmp_path / "store", f"{NAME}@v2")


def test_a_path_that_is_none_is_no_hub_name(home: Path, tmp_path: Path):
    for name in (str(tmp_path / "nowhere"), "nowhere"):
        with pytest.raises(UserError, match="no checkpoint directory"):
            start(tmp_path / "store", name)


def test_an_interrupted_download_does_not_begin_a_store(home: Path, tmp_path: Path):
    [snapshot] = (home / "hub").glob("models--*/snapshots/*")
    shards = {"weight_map": {"a.weight": "model.safetensors", "b.bias": "model-00002-of-00002.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(shards))
    with pytest.raises(UserError, match="missing_weights"):
        start(tmp_path / "store", NAME)
    assert VersionStore(tmp_path / "store").active() is None
