"""`evoquality versions import | promote | rollback` on a store's folder, where no service runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from evoquality.contract import VersionInfo
from service.cli import app
from service.versions.importing import import_checkpoint
from service.versions.store import VersionStore
from tests.full_disk import small_files
from tests.service.conftest import checkpoint

KILLS = 5
STORM = """
import itertools, sys
from pathlib import Path
from service.versions.store import VersionStore
store = VersionStore(Path(sys.argv[1]))
for version in itertools.cycle(sys.argv[2:]):
    store.activate(version)
    print(version, flush=True)
"""


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    return VersionStore(tmp_path / "store")


def versions(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["versions", *map(str, arguments)], env={"COLUMNS": "200"})


def imported(store: VersionStore, source: Path, *options: str) -> str:
    done = versions("import", source, "--store", store.root, "--json", *options)
    assert done.exit_code == 0, done.output
    return VersionInfo.model_validate_json(done.stdout).id


@pytest.fixture
def two(store: VersionStore, tmp_path: Path) -> tuple[str, str]:
    """Two imported versions, of which the first is active."""
    return imported(store, checkpoint(tmp_path / "a", 1)), imported(store, checkpoint(tmp_path / "b", 2))


def refused(store: VersionStore, *command: object) -> str:
    """The words of a command that moves nothing."""
    before = store.active()
    done = versions(*command, "--store", store.root)
    assert done.exit_code == 2
    assert "Traceback" not in done.output
    assert store.active() == before
    return done.stderr


def test_the_first_import_is_active_and_later_ones_wait_for_their_promotion(store: VersionStore, two: tuple[str, str]):
    assert store.active().version == two[0]
    assert [info.id for info in store.list()] == list(two)
    assert versions("promote", two[1], "--store", store.root).exit_code == 0
    assert (store.active().version, store.active().previous) == (two[1], two[0])


def test_a_pointer_to_what_was_deleted_is_mended_by_a_promotion(store: VersionStore, two: tuple[str, str]):
    shutil.rmtree(store.path(two[0]))
    assert versions("promote", two[1], "--store", store.root).exit_code == 0
    assert store.active().version == two[1]


def test_a_full_disk_is_reported_once_and_leaves_nothing_behind(
    store: VersionStore, two: tuple[str, str], tmp_path: Path
):
    kept = sorted(store.root.rglob("*"))
    third = checkpoint(tmp_path / "c", 3)
    with small_files(20):
        told = refused(store, "import", third)
        assert told.splitlines()[-1].startswith("Nothing was imported: ") and told.count("File too large") == 1
        assert "File too large" in refused(store, "promote", two[1])
    assert sorted(store.root.rglob("*")) == kept


def test_a_checkpoint_that_is_there_already_is_not_copied_again(store: VersionStore, tmp_path: Path):
    first = imported(store, checkpoint(tmp_path / "a", 1))
    written = {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}
    assert imported(store, tmp_path / "a") == first
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*")} == written


def test_a_commit_of_the_hubs_that_is_there_already_is_not_fetched_again(
    store: VersionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    commit = "Qwen/Qwen2.5-VL-3B-Instruct@66285546d2b821cf421d4f5eb2576359d3770cd3"
    source = checkpoint(tmp_path / commit.partition("@")[2], 1)
    fetched = []
    monkeypatch.setattr("service.versions.importing._download", lambda *asked: fetched.append(asked) or source)
    first = imported(store, commit)
    (store.root / "ACTIVE").unlink()
    assert imported(store, commit) == first == store.active().version
    assert fetched == [tuple(commit.split("@"))]
    assert "already, with the profile plain" in refused(store, "import", commit, "--profile", "evoquality")


@pytest.mark.parametrize("command", [("promote", "v5a62bab4bdaa"), ("rollback",)])
def test_a_folder_that_is_not_a_store_is_refused(command: tuple[str, ...], tmp_path: Path):
    assert "is not a version store" in refused(VersionStore(tmp_path / "elsewhere"), *command)
    assert not (tmp_path / "elsewhere").exists()


def test_a_profile_that_differs_from_the_stored_one_is_reported(store: VersionStore, tmp_path: Path):
    imported(store, checkpoint(tmp_path / "a", 1))
    said = refused(store, "import", tmp_path / "a", "--profile", "evoquality")
    assert "already, with the profile plain" in said


def test_the_environment_of_a_service_is_that_of_an_import(
    store: VersionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EVOQUALITY_CHECKPOINT", str(checkpoint(tmp_path / "a", 1)))
    monkeypatch.setenv("EVOQUALITY_STORE", str(store.root))
    monkeypatch.setenv("EVOQUALITY_PROFILE", "evoquality")
    assert versions("import").exit_code == 0
    assert store.info(store.active().version).profile == "evoquality"


def test_a_rollback_leads_to_the_previous_version_and_back(store: VersionStore, two: tuple[str, str]):
    versions("promote", two[1], "--store", store.root)
    pointer = json.loads(versions("rollback", "--store", store.root, "--json").stdout)
    assert pointer == {"version": two[0], "previous": two[1]}
    versions("rollback", "--store", store.root)
    assert store.active().version == two[1]


def test_a_rollback_leaves_a_version_whose_files_are_broken(store: VersionStore, two: tuple[str, str]):
    versions("promote", two[1], "--store", store.root)
    (store.path(two[1]) / "model.safetensors").write_bytes(b"")
    assert versions("rollback", "--store", store.root).exit_code == 0
    assert store.active().version == two[0]


@pytest.mark.slow
def test_a_kill_in_a_storm_of_promotions_leaves_no_broken_pointer(store: VersionStore, two: tuple[str, str]):
    for _ in range(KILLS):
        storm = subprocess.Popen([sys.executable, "-c", STORM, store.root, *two], stdout=subprocess.PIPE)
        for _ in range(20):
            assert storm.stdout.readline()
        storm.kill()
        storm.communicate()
        pointer = store.active()
        assert pointer and {pointer.version, pointer.previous} == set(two)
    assert store.activate(two[0]).version == two[0]


def test_what_may_not_serve_is_not_pointed_at(store: VersionStore, two: tuple[str, str], tmp_path: Path):
    store.refuse(two[1], "it agrees with 40 % of the votes")
    assert "40 % of the votes" in refused(store, "promote", two[1])
    (store.root / "refused" / f"{two[1]}.json").unlink()
    other = checkpoint(tmp_path / "other", 3)
    (other / "config.json").write_text('{"model_type": "another"}')
    assert "different_files: config.json" in refused(store, "promote", imported(store, other))
    (store.path(two[1]) / "model.safetensors").write_bytes(b"")
    assert "hash_mismatch" in refused(store, "promote", two[1])


def test_what_is_not_there_is_told(store: VersionStore, two: tuple[str, str], tmp_path: Path):
    assert "no such version" in refused(store, "promote", "v0123456789ab")
    assert "no such version" in refused(store, "promote", "../../etc")
    assert "no previous version" in refused(store, "rollback")
    assert "no checkpoint directory" in refused(store, "import", tmp_path / "nowhere")
    assert "no checkpoint directory" in refused(store, "import", store.info(two[0]).origin)


def test_imports_of_one_checkpoint_at_the_same_time_give_one_version(store: VersionStore, tmp_path: Path):
    source = checkpoint(tmp_path / "a", 1)
    command = [sys.executable, "-m", "service.cli", "versions", "import", str(source), "--store", str(store.root)]
    imports = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(4)]
    told = [one.communicate(timeout=300)[0] for one in imports]
    assert [one.returncode for one in imports] == [0] * 4, told
    [version] = store.list()
    assert store.verify(version.id).id == store.active().version
    assert [path.name for path in (store.root / "versions").iterdir()] == [version.id]


def test_of_different_first_imports_at_the_same_time_one_is_active(store: VersionStore, tmp_path: Path):
    sources = [checkpoint(tmp_path / str(seed), seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda source: import_checkpoint(VersionStore(store.root), str(source), "plain"), sources))
    assert len(store.list()) == 4
    assert store.active().previous is None


def test_a_checkpoint_that_could_not_be_loaded_again_is_not_imported(store: VersionStore, tmp_path: Path):
    source = checkpoint(tmp_path / "a", 1)
    (source / "model.safetensors.index.json").write_text('{"weight_map": {"a.weight": "model.safetensors"}}')
    assert "bad_index" in refused(store, "import", source)
