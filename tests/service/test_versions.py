"""The version store: content-addressed, immutable, verified, atomically pointed at."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from service.errors import AdapterNameUsed, UnknownAdapter, UnknownVersion, VersionError
from service.versions.contents import content_id
from service.versions.importing import import_checkpoint
from service.versions.store import VersionStore
from tests.service.conftest import adapter, checkpoint


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    return VersionStore(tmp_path / "store")


def add(store: VersionStore, source: Path, **more: object) -> str:
    return store.add(source, parent=None, profile="plain", origin="test", **more).id  # type: ignore[arg-type]


def test_the_same_content_is_the_same_version_and_other_content_another(store: VersionStore, tmp_path: Path):
    first = add(store, checkpoint(tmp_path / "a", 1), metrics={"plcc": 0.5})
    assert add(store, checkpoint(tmp_path / "b", 1), metrics={"plcc": 0.9}) == first
    assert add(store, checkpoint(tmp_path / "c", 2)) != first
    assert store.info(first).metrics == {"plcc": 0.5}
    assert [path.name for path in (store.root / "versions").iterdir() if path.name.startswith(".")] == []


def test_a_manifest_tells_hashes_parent_and_making(store: VersionStore, tmp_path: Path):
    first = add(store, checkpoint(tmp_path / "a", 1))
    second = store.add(
        checkpoint(tmp_path / "b", 2), parent=first, profile="plain", origin="evolve round 1",
        metrics={"plcc": 0.7}, config={"steps": 50},
    )  # fmt: skip
    manifest = store.verify(second.id)
    assert set(manifest.files) == {"config.json", "model.safetensors"}
    assert (manifest.parent, manifest.origin, manifest.config) == (first, "evolve round 1", {"steps": 50})
    assert [info.id for info in store.list()] == [first, second.id]


def test_a_version_may_be_added_from_the_store_itself(store: VersionStore, tmp_path: Path):
    first = add(store, checkpoint(tmp_path / "a", 1))
    assert add(store, store.path(first)) == first


def test_changed_added_or_removed_files_are_noticed(store: VersionStore, tmp_path: Path):
    version = add(store, checkpoint(tmp_path / "a", 1))
    config = store.path(version) / "config.json"
    original = config.read_text()
    for spoil in (
        lambda: config.write_text("{}"),
        config.unlink,
        lambda: (store.path(version) / "more").write_text(""),
    ):
        spoil()
        with pytest.raises(VersionError, match="hash_mismatch"):
            store.verify(version)
        config.write_text(original)
    (store.path(version) / "more").unlink()
    store.verify(version)


def test_a_forged_manifest_does_not_help(store: VersionStore, tmp_path: Path):
    first, second = (add(store, checkpoint(tmp_path / str(seed), seed)) for seed in (1, 2))
    (store.path(second) / "manifest.json").write_bytes((store.path(first) / "manifest.json").read_bytes())
    (store.path(second) / "model.safetensors").write_bytes((store.path(first) / "model.safetensors").read_bytes())
    (store.path(second) / "config.json").write_bytes((store.path(first) / "config.json").read_bytes())
    with pytest.raises(VersionError, match="hash_mismatch"):
        store.verify(second)


def test_an_unreadable_manifest_refuses_the_version_and_hides_it(store: VersionStore, tmp_path: Path):
    version = add(store, checkpoint(tmp_path / "a", 1))
    (store.path(version) / "manifest.json").write_text("{")
    with pytest.raises(VersionError, match="bad_manifest"):
        store.verify(version)
    assert store.list() == []


def test_the_pointer_remembers_the_version_before(store: VersionStore, tmp_path: Path):
    first, second = (add(store, checkpoint(tmp_path / str(seed), seed)) for seed in (1, 2))
    assert store.active() is None
    with pytest.raises(UnknownVersion):
        store.rollback()
    assert store.activate(first).previous is None
    assert store.activate(second).previous == first
    assert store.activate(second).previous == first
    assert store.rollback().version == first
    assert json.loads((store.root / "ACTIVE").read_text()) == {"version": first, "previous": second}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../../etc", "v0123456789ab/..", "V0123456789AB", "v0123456789ab\n", "v" + "0" * 13]
)
def test_no_id_leads_out_of_the_store(store: VersionStore, name: str):
    for method in (store.path, store.verify, store.activate, store.info):
        with pytest.raises(UnknownVersion):
            method(name)


@pytest.mark.parametrize("name", ["", "..", "../versions", "a/b", ".hidden", "a\n", "a" * 101])
def test_no_adapter_name_leads_out_of_the_store(store: VersionStore, name: str):
    with pytest.raises(UnknownAdapter):
        store.adapter_path(name)


def test_adapter_ids_are_never_used_again_not_even_after_a_restart(store: VersionStore, tmp_path: Path):
    adapter(store.root / "adapters" / "one")
    assert store.adapter_path("one").is_dir()
    assert [store.new_adapter_id(name) for name in ("one", "two")] == [1, 2]
    again = VersionStore(store.root)
    with pytest.raises(AdapterNameUsed):
        again.new_adapter_id("one")
    assert again.new_adapter_id("three") == 3


def test_what_is_no_checkpoint_is_not_added(store: VersionStore, tmp_path: Path):
    with pytest.raises(VersionError, match="missing_directory"):
        add(store, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(VersionError, match="no_weights"):
        add(store, tmp_path / "empty")


BESIDE = ["original/consolidated.00.pth", "original/params.json", "checkpoint-500/model.safetensors", "onnx/model.onnx",
          "checkpoint-500/optimizer.pt", "pytorch_model.bin", "pytorch_model.bin.index.json","consolidated.safetensors",
          "adapter_model.safetensors", "training_args.bin", ".cache/huggingface/x.metadata", "runs/events"]  # fmt: skip
"""What lies beside the weights in checkpoints from the hub, and in what a training left."""


def test_what_no_engine_reads_of_a_checkpoint_is_named_and_left_out_of_the_version(
    store: VersionStore, tmp_path: Path, caplog
):
    source = checkpoint(tmp_path / "source", 1)
    plain = content_id(source)
    for name in BESIDE:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / "model.safetensors", source / name)
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tools.jinja").write_text("{{ tools }}")
    (source / "loop").symlink_to(source)
    index = {"a.weight": "model.safetensors", "b.bias": "model.safetensors"}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    with caplog.at_level("INFO"):
        info = import_checkpoint(store, str(source), "plain")
    kept = {file.relative_to(store.path(info.id)).as_posix() for file in store.path(info.id).rglob("*")}
    templates = {"additional_chat_templates", "additional_chat_templates/tools.jinja"}
    assert kept == {"model.safetensors", "model.safetensors.index.json", "config.json", "manifest.json", *templates}
    assert store.verify(info.id) and content_id(source) == info.id != plain
    [told] = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert {name.split("/")[0] for name in [*BESIDE, "loop"] if name[0] != "."} == set(told.split(": ")[1].split(", "))


def test_weights_that_somebody_adds_to_a_version_are_noticed(store: VersionStore, tmp_path: Path):
    version = add(store, checkpoint(tmp_path / "a", 1))
    shutil.copy(store.path(version) / "model.safetensors", store.path(version) / "consolidated.safetensors")
    with pytest.raises(VersionError, match=r"does not name the file consolidated\.safetensors"):
        store.verify(version)
