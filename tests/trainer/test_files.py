"""Files that a kill may interrupt, and folders that belong to one trainer at a time."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE, Popen

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from tests.full_disk import small_files
from tests.service.conftest import picture
from trainer.cli import app
from trainer.errors import DiskFull, Occupied
from trainer.files import append_jsonl, read_json, read_jsonl, replacing, write_json, writing
from trainer.leftovers import folder_lock
from trainer.progress import Stages, stage_times

HOLD = """
import sys
from pathlib import Path
from trainer.leftovers import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""


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


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Popen[str]]:
    """A process in the folder."""
    with Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        yield process
        process.kill()


def test_a_folder_with_a_trainer_in_it_is_refused_until_that_one_is_gone_even_by_a_kill(
    other: Popen[str], tmp_path: Path
) -> None:
    with pytest.raises(Occupied, match="another trainer is at work"), folder_lock(tmp_path):
        pass
    other.kill()
    other.wait()
    with folder_lock(tmp_path):
        pass


def test_another_trainer_is_waited_for_and_the_wait_is_told(other: Popen[str], tmp_path: Path) -> None:
    said: list[str] = []

    def say(sentence: str) -> None:
        said.append(sentence)
        other.kill()

    with folder_lock(tmp_path, 20, say):
        assert said == [f"another trainer is at work in {tmp_path}: waiting for 20 s"]


def test_a_second_trainer_on_a_store_exits_with_6_and_has_done_nothing(
    other: Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "operator.key").write_text("key")
    (tmp_path / "pool").mkdir()
    flags = ["--store", tmp_path, "--pool", tmp_path / "pool", "--run", tmp_path / "run", "--patience", "0.1"]
    monkeypatch.setattr(sys, "argv", ["evoquality-trainer", "evolve", *map(str, flags)])
    with pytest.raises(SystemExit) as ended:
        app()
    assert (ended.value.code, [file.name for file in (tmp_path / "run").iterdir()]) == (6, [".trainer.lock"])
    assert f"another trainer is at work in {tmp_path}; start this one again when" in capsys.readouterr().err
    assert other.poll() is None


@pytest.mark.parametrize("command", ["evaluate", "audit"])
def test_a_second_process_in_a_folder_of_results_exits_with_6(
    command: str, other: Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labels.csv").write_text("image,score\n0.png,1\n1.png,2\n2.png,3\n")
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(picture(100 * number))
    monkeypatch.setattr(sys, "argv", ["", command, "--benchmarks", str(tmp_path), "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        app()
    assert ended.value.code == 6
