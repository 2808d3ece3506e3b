"""A broken entry of the store is named and passed over: it hides no good one, and is never an internal error."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from service.errors import UserError
from service.versions.store import VersionStore
from tests.full_disk import small_files
from tests.service.conftest import Listening, World, adapter, checkpoint
from tests.service.test_benchmarks import BLUR, record
from tests.service.test_http import ask as ask_publicly
from tests.service.test_http import assert_problem
from tests.service.test_operators import ask
from tests.service.test_pointer import versions as command

Break = Callable[[Path], object]


def cleared(file: Path) -> Path:
    if file.is_dir():
        shutil.rmtree(file)
    file.unlink(missing_ok=True)
    file.parent.mkdir(exist_ok=True)
    return file


def huge(file: Path) -> None:
    with cleared(file).open("wb") as stream:
        stream.truncate(2**33)


BREAKS: dict[str, Break] = {
    "empty": lambda file: cleared(file).write_text(""),
    "no JSON": lambda file: cleared(file).write_text("{"),
    "a list": lambda file: cleared(file).write_text("[]"),
    "null": lambda file: cleared(file).write_text("null"),
    "a number": lambda file: cleared(file).write_text("1" * 5000),
    "deep": lambda file: cleared(file).write_text("[" * 100_000),
    "keys of the wrong type": lambda file: cleared(file).write_text(
        json.dumps({"id": 1, "version": 1, "reason": 1, "benchmarks": 1, "used": 1})
    ),
    "not UTF-8": lambda file: cleared(file).write_bytes(b"\xff\xfe{}"),
    "a folder": lambda file: cleared(file).mkdir(),
    "a pipe": lambda file: os.mkfifo(cleared(file)),
    "a link to nothing": lambda file: cleared(file).symlink_to("nowhere"),
    "huge": huge,
}
broken_in_every_way = pytest.mark.parametrize("spoil", BREAKS.values(), ids=BREAKS)


def listed(world: World, run) -> list[str]:
    answer = ask_publicly(world, run, "GET", "/v1/versions")
    assert answer.status_code == 200, answer.text
    return [version["id"] for version in answer.json()["versions"]]


@broken_in_every_way
def test_a_broken_manifest_hides_its_own_version_only(world: World, run, caplog, spoil: Break):
    spoil(world.store.path(world.second) / "manifest.json")
    assert listed(world, run) == [world.first]
    assert f"version {world.second} is passed over" in caplog.text
    assert ask(world, run, "POST", f"/internal/versions/{world.second}/promote").status_code in {404, 422}


@broken_in_every_way
def test_a_broken_pointer_is_mended_by_the_next_promotion(world: World, run, caplog, spoil: Break):
    run(world.service.swapper.promote(world.second))
    spoil(world.store.root / "ACTIVE")
    with pytest.raises(UserError, match="promote a version, which writes it anew"):
        world.store.active()
    assert listed(world, run) == [world.first, world.second]
    assert "the pointer is passed over" in caplog.text
    if (world.store.root / "ACTIVE").is_dir():
        shutil.rmtree(world.store.root / "ACTIVE")  # which nothing but a person may delete
        return
    assert ask(world, run, "POST", "/internal/rollback").json()["version"] == world.first
    assert json.loads((world.store.root / "ACTIVE").read_text()) == {"version": world.first, "previous": world.second}


@broken_in_every_way
def test_the_command_mends_a_broken_pointer(world: World, spoil: Break):
    spoil(world.store.root / "ACTIVE")
    if (world.store.root / "ACTIVE").is_dir():
        assert command("promote", world.second, "--store", world.store.root).exit_code == 2
        return
    assert command("promote", world.second, "--store", world.store.root).exit_code == 0
    assert world.store.active().version == world.second


@broken_in_every_way
def test_a_broken_mark_keeps_its_version_from_serving_and_no_other(world: World, run, spoil: Break):
    spoil(world.store.root / "refused" / f"{world.second}.json")
    assert listed(world, run) == [world.first, world.second]
    assert "cannot be read" in ask_publicly(world, run, "GET", "/v1/versions").json()["versions"][1]["refused"]
    assert_problem(ask(world, run, "POST", f"/internal/versions/{world.second}/promote"), 422, "version_refused")


@broken_in_every_way
def test_broken_results_hide_themselves_only(world: World, run, caplog, spoil: Break):
    record(world, run, world.first, blur=BLUR)
    spoil(world.store.root / "benchmarks" / f"{world.second}.json")
    shown = ask_publicly(world, run, "GET", "/v1/versions").json()["versions"]
    assert [bool(version["benchmarks"]) for version in shown] == [True, False]
    assert f"benchmarks/{world.second}.json is passed over" in caplog.text
    assert ask(world, run, "POST", f"/internal/versions/{world.second}/promote").status_code == 200
    assert ask(world, run, "POST", "/internal/rollback").status_code == 200


@broken_in_every_way
def test_broken_ids_of_adapters_are_told_and_never_begun_anew(world: World, run, spoil: Break):
    adapter(world.store.root / "adapters" / "one")
    spoil(world.store.root / "adapters.json")
    answer = ask(world, run, "POST", "/internal/adapters", json={"name": "one"})
    assert answer.status_code in {409, 507}
    assert "adapters.json" in answer.json()["detail"]


def test_a_time_without_a_zone_is_in_utc(world: World, run):
    manifest = world.store.path(world.second) / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "created": "2020-01-01T00:00:00"}))
    assert listed(world, run) == [world.second, world.first]
    assert ask(world, run, "POST", f"/internal/versions/{world.second}/promote").status_code == 200


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_a_figure_that_is_no_number_hides_its_own_version_only(world: World, run, value: str):
    manifest = world.store.path(world.second) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"metrics": {}', f'"metrics": {{"plcc": {value}}}'))
    assert listed(world, run) == [world.first]


def test_figures_that_are_no_numbers_are_not_kept(world: World, tmp_path: Path):
    source = checkpoint(tmp_path / "third", 3)
    figures = {"plcc": float("nan"), "srcc": 0.5}
    added = world.store.add(source, parent=None, profile="plain", origin="test", metrics=figures)
    assert world.store.info(added.id).metrics == {"srcc": 0.5}


def test_what_else_lies_among_the_versions_is_no_version(world: World, run):
    (world.store.root / "versions" / "v-old").mkdir()
    (world.store.root / "versions" / "v0123456789ab").write_text("a file")
    assert listed(world, run) == [world.first, world.second]


JUNK = [".DS_Store", "Thumbs.db", "thumbs.db", "._model.safetensors", "desktop.ini", ".directory", "config.json~",
        ".config.json.swp", "#config.json#", ".ipynb_checkpoints/config-checkpoint.json", "__MACOSX/._config.json",
        "@eaDir/config.json", ".~lock.README#", "half.tmp"]  # fmt: skip


@pytest.mark.parametrize("name", JUNK)
def test_what_desktops_and_editors_leave_behind_changes_no_version(world: World, run, tmp_path: Path, name: str):
    source = checkpoint(tmp_path / "again", 1)
    for folder in (world.store.path(world.first), source, world.store.path(world.second)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0")
    assert world.store.add(source, parent=None, profile="plain", origin="test").id == world.first
    run(world.service.swapper.promote(world.second))
    assert run(world.service.swapper.rollback()).version == world.first


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "config.json").write_text("{}"), "config.json was altered"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "more.json").write_text("{}"), "the manifest does not name the file more.json"),
    ],
)
def test_a_mismatch_names_the_file(world: World, run, spoil: Break, told: str):
    spoil(world.store.path(world.second))
    answer = ask(world, run, "POST", f"/internal/versions/{world.second}/promote")
    assert_problem(answer, 422, "version_refused")
    assert f"hash_mismatch: {told}" in answer.json()["detail"]


def test_what_an_earlier_release_hashed_is_verified_still(world: World):
    version = world.store.path(world.second)
    (version / "notes~").write_text("kept")
    content = json.loads((version / "manifest.json").read_text())
    from service.versions.contents import _sha256, id_of

    content["files"]["notes~"] = _sha256(version, "notes~")
    content["id"] = id_of(content["files"])
    (version / "manifest.json").write_text(json.dumps(content))
    version.rename(version.with_name(content["id"]))
    world.store.verify(content["id"])


def test_a_full_disk_is_told_wherever_something_is_written(world: World, run):
    adapter(world.store.root / "adapters" / "one")
    record(world, run, world.first, blur=BLUR)
    with small_files(20):
        results = record(world, run, world.first, noise=BLUR)
        loaded = ask(world, run, "POST", "/internal/adapters", json={"name": "one"})
        promoted = ask(world, run, "POST", f"/internal/versions/{world.second}/promote")
    assert_problem(results, 507, "store_failure")
    assert_problem(loaded, 507, "store_failure")
    assert_problem(promoted, 507, "pointer_failure")
    assert ask(world, run, "POST", f"/internal/versions/{world.second}/promote").status_code == 200


def test_what_killed_writers_left_is_removed_by_the_next_one_and_at_the_start(world: World, run):
    root = world.store.root
    for folder in ("benchmarks", "refused", "canaries"):
        (root / folder).mkdir(exist_ok=True)
    left = [root / f".ACTIVE-{'0' * 32}", root / "benchmarks" / f".{world.first}.json-{'0' * 32}"]
    left += [root / folder / f".{world.second}.json-{'0' * 32}" for folder in ("refused", "canaries")]
    for file in left:
        file.write_text("{")
    (root / "versions" / ".adding-x").mkdir()
    run(world.service.swapper.promote(world.second))
    assert not any(file.exists() for file in left)
    left[0].write_text("{")
    VersionStore(root).sweep()
    assert not left[0].exists()
    assert not (root / "versions" / ".adding-x").exists()


def test_ten_thousand_versions_are_listed_beside_everything_else(listening: Listening):
    """Eight callers, while probes are answered."""
    world = listening.world
    content = json.loads((world.store.path(world.second) / "manifest.json").read_text())
    for number in range(10_000):
        folder = world.store.root / "versions" / f"v{number:012x}"
        folder.mkdir()
        (folder / "manifest.json").write_text(json.dumps({**content, "id": folder.name}))
    with httpx.Client(base_url=listening.url, timeout=120) as client:
        assert len(client.get("/v1/versions").json()["versions"]) == 10_002
        read = []
        original = Path.open

        def noted(self: Path, *arguments, **options):
            read.append(self)
            return original(self, *arguments, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "open", noted)
            assert len(client.get("/v1/versions").json()["versions"]) == 10_002
        assert {path.name for path in read} == {"ACTIVE"}  # the follower reads it, too
