"""Two checkpoints are compared by what an engine reads of their files, in both directions alike."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from service.versions.meaning import meaning
from tests.engine.conftest import EMBEDDED
from tests.service.conftest import World, checkpoint
from tests.service.test_operators import ask
from tests.service.test_pointer import versions as versions_command

Change = Callable[[Path], object]


def edited(file: str, **changes: object) -> Change:
    """Sets keys of a JSON file; None removes one."""

    def change(folder: Path) -> None:
        content = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
        content = {key: value for key, value in {**content, **changes}.items() if value is not None}
        (folder / file).write_text(json.dumps(content))

    return change


def written(file: str, text: str) -> Change:
    return lambda folder: (folder / file).write_text(text)


def removed(file: str) -> Change:
    return lambda folder: (folder / file).unlink()


def template_moved(folder: Path) -> None:
    edited("tokenizer_config.json", chat_template=(folder / "chat_template.jinja").read_text())(folder)
    (folder / "chat_template.jinja").unlink()


def template_in_its_former_file(folder: Path) -> None:
    text = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": text}))
    (folder / "chat_template.jinja").unlink()


def spelt_out(folder: Path) -> None:
    """The tokens that tokenizer.json adds, in the file of former releases."""
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    (folder / "added_tokens.json").write_text(json.dumps({token["content"]: token["id"] for token in added}))


END = {"content": "<|im_end|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}

SAME: dict[str, Change] = {
    "a README": written("README.md", "# Another"),
    "a licence": written("LICENSE", "MIT"),
    "a state of training": written("trainer_state.json", "{}"),
    "a picture": written("plot.png", "PNG"),
    "a desktop's file": written(".DS_Store", "x"),
    "another release's mark": edited("config.json", transformers_version="4.99"),
    "a number spelt otherwise": edited("config.json", image_token_id=5.0),
    "the former name of the type": edited("config.json", torch_dtype="float32", dtype=None),
    "special tokens said twice": edited("special_tokens_map.json", eos_token=END, pad_token="<|endoftext|>"),
    "added tokens said twice": spelt_out,
    "spellings beside tokenizer.json": written("vocab.json", '{"a": 1}'),
    "no generation config": removed("generation_config.json"),
    "a generation config saved by itself": edited("generation_config.json", _from_model_config=True, bos_token_id=1),
    "neutral defaults of sampling": edited(
        "generation_config.json", temperature=1.0, top_p=1.0, repetition_penalty=1.0
    ),
    "no end beside the tokenizer's own": edited("generation_config.json", eos_token_id=[2]),
    "the template in the tokenizer's settings": template_moved,
    "the template in its former file": template_in_its_former_file,
}
OTHER: dict[str, tuple[str, Change]] = {
    "another end": ("generation_config.json", edited("generation_config.json", eos_token_id=[2, 3])),
    "other defaults of sampling": ("generation_config.json", edited("generation_config.json", temperature=0.1)),
    "a penalty": ("generation_config.json", edited("generation_config.json", repetition_penalty=1.05)),
    "an end token of former releases": (
        "tokenizer_config.json",
        edited("special_tokens_map.json", eos_token="<|im_start|>"),
    ),
    "an extra token": (
        "tokenizer_config.json",
        edited("special_tokens_map.json", additional_special_tokens=["<more>"]),
    ),
    "an added token": ("tokenizer_config.json", written("added_tokens.json", '{"<more>": 460}')),
    "another template": ("chat_template.jinja", written("chat_template.jinja", "{{ messages }}")),
    "another picture size": ("processor_config.json", edited("processor_config.json", image_processor={})),
    "a processor's file": ("preprocessor_config.json", edited("preprocessor_config.json", max_pixels=3136)),
    "another architecture": ("config.json", edited("config.json", model_type="other")),
    "no configuration": ("config.json", removed("config.json")),
    "no tokenizer": ("tokenizer.json", removed("tokenizer.json")),
    "broken JSON": ("config.json", written("config.json", "{")),
    "quantized": ("quantize_config.json", written("quantize_config.json", '{"bits": 4}')),
}


def copied(target: Path, change: Change) -> Path:
    """The small files of the embedded checkpoint, changed."""
    shutil.copytree(EMBEDDED, target, ignore=shutil.ignore_patterns("*.safetensors"))
    change(target)
    return target


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_changes_nothing_for_an_engine_is_the_same(change: Change, tmp_path: Path):
    assert meaning(copied(tmp_path / "changed", change)) == meaning(EMBEDDED)


@pytest.mark.parametrize(("file", "change"), OTHER.values(), ids=OTHER)
def test_what_an_engine_reads_differs_and_names_its_file(file: str, change: Change, tmp_path: Path):
    changed, whole = meaning(copied(tmp_path / "changed", change)), meaning(EMBEDDED)
    assert {name for name in changed.keys() | whole.keys() if changed.get(name) != whole.get(name)} >= {file}


DOORS: dict[str, tuple[int, Change]] = {
    "special tokens that say nothing": (200, edited("special_tokens_map.json")),
    "a generation config that says nothing": (200, edited("generation_config.json", _from_model_config=True)),
    "a README": (200, written("README.md", "# Another")),
    "special tokens that say something": (422, edited("special_tokens_map.json", eos_token="<end>")),
    "another end": (422, edited("generation_config.json", eos_token_id=7)),
    "another processor": (422, edited("processor_config.json", size=2)),
}


def third(world: World, tmp_path: Path, change: Change) -> str:
    source = checkpoint(tmp_path / "third", 3)
    change(source)
    return world.store.add(source, parent=None, profile="plain", origin="test").id


@pytest.mark.parametrize(("status", "change"), DOORS.values(), ids=DOORS)
def test_what_may_be_promoted_can_be_rolled_back(world: World, run, tmp_path: Path, status: int, change: Change):
    version = third(world, tmp_path, change)
    assert ask(world, run, "POST", f"/internal/versions/{version}/promote").status_code == status
    serving = version if status == 200 else world.first
    assert world.service.swap_lock.version.id == world.store.active().version == serving
    if status == 200:
        assert ask(world, run, "POST", "/internal/rollback").json()["version"] == world.first
        assert ask(world, run, "POST", "/internal/rollback").json()["version"] == version


@pytest.mark.parametrize(("status", "change"), DOORS.values(), ids=DOORS)
def test_the_command_allows_what_the_service_allows(world: World, tmp_path: Path, status: int, change: Change):
    version = third(world, tmp_path, change)
    done = versions_command("promote", version, "--store", world.store.root)
    assert (done.exit_code == 0) == (status == 200), done.output
    if status == 200:
        assert versions_command("rollback", "--store", world.store.root).exit_code == 0
        assert world.store.active().version == world.first


def test_the_command_compares_with_the_version_before_where_the_active_one_is_broken(world: World, tmp_path: Path):
    version = third(world, tmp_path, edited("processor_config.json", size=2))
    world.store.activate(world.second)
    (world.store.path(world.second) / "model.safetensors").write_bytes(b"")
    refused = versions_command("promote", version, "--store", world.store.root)
    assert refused.exit_code == 2 and "different_files: processor_config.json" in refused.stderr


def test_a_swap_compares_with_what_was_loaded_not_with_what_lies_on_the_disk_now(world: World, run):
    (world.store.path(world.first) / "config.json").write_text('{"model_type": "forged"}')
    world.store.activate(world.second)
    assert ask(world, run, "POST", f"/internal/versions/{world.second}/promote").status_code == 200
