"""No path of the store is a link or leads through one: nothing outside its root is read, written or deleted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from evoquality.contract import BenchmarksRequest
from service.errors import AdapterRefused, LinkInStore, ProblemError, UserError, VersionError
from service.versions.adapters import Adapters
from service.versions.store import VersionStore
from tests.service.conftest import World, adapter, checkpoint
from tests.service.test_follower import tree
from tests.service.test_handover import hand_over
from tests.service.test_operators import ask


def moved_out(path: Path, outside: Path) -> Path:
    """Moves something out of the store and leaves a link in its place."""
    outside.mkdir(exist_ok=True)
    target = path.rename(outside / path.name)
    path.symlink_to(target, target_is_directory=target.is_dir())
    return target


@pytest.mark.parametrize("linked", ["adapters", "adapters/one"])
def test_an_adapter_behind_a_link_is_not_loaded(world: World, run, tmp_path: Path, linked: str):
    adapter(world.store.root / "adapters" / "one")
    moved_out(world.store.root / linked, tmp_path / "outside")
    refused = ask(world, run, "POST", "/internal/adapters", json={"name": "one"})
    assert (refused.status_code, refused.json()["code"]) == (409, "link_in_store")


def test_an_adapter_whose_files_are_links_is_not_loaded(world: World, run, tmp_path: Path):
    path = adapter(world.store.root / "adapters" / "one")
    moved_out(path / "adapter_model.safetensors", tmp_path / "outside")
    with pytest.raises(AdapterRefused, match="links"):
        run(world.service.adapters.load("one"))


@pytest.mark.parametrize("linked", ["adapters", "adapters/one"])
def test_removing_an_adapter_deletes_nothing_outside_the_store(world: World, run, tmp_path: Path, linked: str):
    adapter(world.store.root / "adapters" / "one")
    adapters: Adapters = world.service.adapters
    run(adapters.load("one"))
    moved_out(world.store.root / linked, tmp_path / "outside")
    before = tree(tmp_path / "outside")
    run(adapters.remove("one"))
    assert tree(tmp_path / "outside") == before != {}


def whole_folder(store: VersionStore, version: str) -> Path:
    return store.root / "versions"


def version_folder(store: VersionStore, version: str) -> Path:
    return store.path(version)


def version_file(store: VersionStore, version: str) -> Path:
    return store.path(version) / "config.json"


def version_manifest(store: VersionStore, version: str) -> Path:
    return store.path(version) / "manifest.json"


@pytest.mark.parametrize("linked", [whole_folder, version_folder, version_file, version_manifest])
def test_a_version_behind_a_link_does_not_serve(
    world: World, run, tmp_path: Path, linked: Callable[[VersionStore, str], Path]
):
    moved_out(linked(world.store, world.second), tmp_path / "outside")
    assert ask(world, run, "POST", f"/internal/versions/{world.second}/promote").status_code in {409, 422}
    with pytest.raises((LinkInStore, VersionError)):
        world.store.verify(world.second)
    assert world.service.swap_lock.version.id == world.first


def test_a_folder_in_a_version_that_is_a_link_is_noticed(world: World, tmp_path: Path):
    (tmp_path / "outside").mkdir()
    (world.store.path(world.first) / "more").symlink_to(tmp_path / "outside")
    with pytest.raises(VersionError, match="hash_mismatch: more is a link"):
        world.store.verify(world.first)


def test_nothing_is_added_through_a_link(tmp_path: Path):
    store = VersionStore(tmp_path / "store")
    store.root.mkdir()
    (tmp_path / "outside").mkdir()
    (store.root / "versions").symlink_to(tmp_path / "outside")
    with pytest.raises(LinkInStore, match="versions"):
        store.add(checkpoint(tmp_path / "source", 1), parent=None, profile="plain", origin="test")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_checkpoint_of_links_is_copied_as_files(tmp_path: Path):
    """As in the hub's cache."""
    source = checkpoint(tmp_path / "source", 1)
    for file in list(source.iterdir()):
        moved_out(file, tmp_path / "blobs")
    store = VersionStore(tmp_path / "store")
    version = store.add(source, parent=None, profile="plain", origin="test").id
    store.verify(version)
    assert not any(path.is_symlink() for path in store.path(version).iterdir())


@pytest.mark.parametrize("folder", ["refused", "benchmarks"])
def test_nothing_is_noted_through_a_link(world: World, tmp_path: Path, folder: str):
    (tmp_path / "outside").mkdir()
    (world.store.root / folder).symlink_to(tmp_path / "outside")
    note = (lambda: world.store.refuse(world.first, "bad")) if folder == "refused" else (
        lambda: world.store.record_benchmarks(world.first, BenchmarksRequest(benchmarks={}))
    )  # fmt: skip
    with pytest.raises(LinkInStore, match=folder):
        note()
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("name", ["write.lock", "adapters.lock", "adapters.json"])
def test_no_file_of_the_store_is_opened_through_a_link(world: World, run, tmp_path: Path, name: str):
    adapter(world.store.root / "adapters" / "one")
    (tmp_path / "outside").write_text("kept")
    (world.store.root / name).unlink(missing_ok=True)
    (world.store.root / name).symlink_to(tmp_path / "outside")
    with pytest.raises((ProblemError, UserError)):
        run(world.service.adapters.load("one"))
        run(world.service.swapper.promote(world.second))
    assert (tmp_path / "outside").read_text() == "kept"


def test_a_pointer_that_is_a_link_is_not_followed_but_replaced(world: World, tmp_path: Path):
    pointer = moved_out(world.store.root / "ACTIVE", tmp_path / "outside")
    before = pointer.read_text()
    with pytest.raises(UserError, match="not a regular file"):
        VersionStore(world.store.root).active()
    world.store.activate(world.second)
    assert pointer.read_text() == before
    assert json.loads((world.store.root / "ACTIVE").read_text())["version"] == world.second


@pytest.mark.parametrize("linked", [".", "one"])
def test_handed_over_weights_in_the_store_are_not_behind_a_link(make_world, run, tmp_path: Path, linked: str):
    rollout = make_world(role="rollout")
    hand_over(rollout, "one")
    moved_out((rollout.store.root / "handover" / linked).resolve(), tmp_path / "outside")
    refused = ask(rollout, run, "PUT", "/internal/weights", json={"name": "one"})
    assert refused.status_code in {404, 409}
    assert rollout.service.swap_lock.version.id == rollout.first


def test_a_store_that_is_itself_reached_through_a_link_works(world: World, tmp_path: Path):
    (tmp_path / "shortcut").symlink_to(world.store.root)
    store = VersionStore(tmp_path / "shortcut")
    store.verify(store.active().version)
    assert store.activate(world.second).version == world.second
    shutil.rmtree(store.path(world.second))
