"""Files that a kill may interrupt."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from tests.full_disk import small_files
from trainer.errors import DiskFull
from trainer.files import append_jsonl, read_json, read_jsonl, replacing, write_json, writing
from trainer.progress import Stages, stage_times


def test_a_line_torn_by_a_kill_is_passed_over_and_the_next_append_starts_a_new_one(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    append_jsonl(file, [{"n": 1}, {"n": 2}])
    with file.open("a") as torn:
        torn.write('{"n": 3, "half')
    append_jsonl(file, [{"n": 4}])
    assert [row["n"] for row in read_jsonl(file)] == [1, 2, 4]


def test_a_file_that_does_not_exist_has_no_rows(tmp_path: Path) -> None:
    assert list(read_jsonl(tmp_path / "none.jsonl")) == []


def test_replacing_a_file_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_json(tmp_path / "value.json", {"a": 1})
    write_json(tmp_path / "value.json", {"a": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


def save_tensors(path: Path) -> None:
    with replacing(path) as file:
        torch.save({"weights": torch.zeros(100_000)}, file)


def save_safetensors(path: Path) -> None:
    with writing(path):
        save_file({"weights": np.zeros(100_000)}, path)


def copy_folder(path: Path) -> None:
    (path.parent / "source").mkdir()
    (path.parent / "source" / "large").symlink_to("/bin/bash")
    with writing(path):
        shutil.copytree(path.parent / "source", path, copy_function=shutil.copyfile)


def save_png(path: Path) -> None:
    with writing(path):
        Image.effect_noise((256, 256), 80).save(path, format="PNG")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_json(path, "x" * 10_000),
        lambda path: append_jsonl(path, ["x" * 10_000]),
        save_tensors,
        save_safetensors,
        copy_folder,
        save_png,
    ],
)
def test_a_write_that_finds_no_room_says_what_was_written_and_what_to_do(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    told = r"results could not be written: File too large \([\d,]+ MiB free .*; make room"
    with pytest.raises(DiskFull, match=told), small_files():
        write(tmp_path / "results")


def test_a_file_that_could_not_be_replaced_is_as_it_was(tmp_path: Path) -> None:
    write_json(tmp_path / "value.json", 1)
    with pytest.raises(DiskFull), small_files():
        write_json(tmp_path / "value.json", "x" * 10_000)
    assert read_json(tmp_path / "value.json") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


def test_rows_from_before_a_full_disk_stay_and_appending_goes_on_once_there_is_room(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    append_jsonl(file, [1])
    with pytest.raises(DiskFull), small_files(100):
        append_jsonl(file, ["x" * 200])
    append_jsonl(file, [2])
    assert list(read_jsonl(file)) == [1, 2]


def test_other_failures_are_told_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        append_jsonl(tmp_path, [1])


def test_a_time_torn_by_a_kill_does_not_hide_the_others(tmp_path: Path) -> None:
    log = tmp_path / "stages.jsonl"
    with Stages(log).stage("votes", total=None):
        pass
    with log.open("a") as torn:
        torn.write('{"stage": "GR')
    assert [row["stage"] for row in stage_times(log)] == ["votes"]
