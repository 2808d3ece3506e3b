"""A run's folder, and a store, belong to one trainer at a time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from tests.service.conftest import picture
from trainer.cli import app
from trainer.errors import Occupied
from trainer.leftovers import folder_lock

HOLD = """
import sys
from pathlib import Path
from trainer.leftovers import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""


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
    threading.Timer(0.5, other.kill).start()
    with folder_lock(tmp_path, 20, said.append):
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
    assert (ended.value.code, list((tmp_path / "run").iterdir())) == (6, [])
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
