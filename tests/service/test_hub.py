"""A checkpoint by its name on the hub, out of the hub's cache as it lies on disk. No hub is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.contract import VersionInfo
from service.versions.store import VersionStore
from tests.service.conftest import checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "someone/Tiny-VL"
START = """
import sys
from pathlib import Path
from service.server import first_version
from service.configuration.settings import Settings
from service.versions.store import VersionStore

try:
    settings = Settings(store=Path(sys.argv[1]), checkpoint=sys.argv[2], profile="evoquality")
    first_version(VersionStore(settings.store), settings)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
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
    return home


def start(home: Path, store: Path, name: str) -> str:
    """Begins a store in a process of its own, since the hub's library reads its environment once. Returns the error."""
    env = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", START, str(store), name], env=env, capture_output=True, text=True)
    return done.stderr


def begun(store: Path) -> VersionInfo:
    versions = VersionStore(store)
    active = versions.active()
    assert active
    versions.verify(active.version)
    return versions.info(active.version)


@pytest.mark.parametrize("name", [NAME, f"{NAME}@main", f"{NAME}@{COMMIT}"])
def test_a_cached_model_begins_the_store_with_its_profile(home: Path, tmp_path: Path, name: str):
    assert start(home, tmp_path / "store", name) == ""
    version = begun(tmp_path / "store")
    assert (version.origin, version.profile) == (f"{NAME}@{COMMIT}", "evoquality")
    files = list((tmp_path / "store" / "versions" / version.id).iterdir())
    assert {file.name for file in files} == {"config.json", "model.safetensors", "manifest.json"}
    assert not [file for file in files if file.is_symlink()]


def test_what_is_neither_here_nor_in_the_cache_is_told_with_what_keeps_it_away(home: Path, tmp_path: Path):
    sentence = start(home, tmp_path / "store", "someone/Else")
    for part in ("ValueError", "someone/Else", str(home / "hub"), "HF_HUB_OFFLINE"):
        assert part in sentence


def test_an_unknown_revision_is_told(home: Path, tmp_path: Path):
    assert f"{NAME}@v2 is neither" in start(home, tmp_path / "store", f"{NAME}@v2")


def test_a_path_that_is_none_is_no_hub_name(home: Path, tmp_path: Path):
    assert "no checkpoint directory" in start(home, tmp_path / "store", str(tmp_path / "nowhere"))
    assert "no checkpoint directory" in start(home, tmp_path / "store", "nowhere")


def test_an_interrupted_download_does_not_begin_a_store(home: Path, tmp_path: Path):
    [snapshot] = (home / "hub").glob("models--*/snapshots/*")
    shards = {"weight_map": {"a.weight": "model.safetensors", "b.bias": "model-00002-of-00002.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(shards))
    assert "missing_weights" in start(home, tmp_path / "store", NAME)
    assert VersionStore(tmp_path / "store").active() is None
