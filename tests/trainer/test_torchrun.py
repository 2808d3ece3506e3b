"""The exit code of `python -m trainer.torchrun` is that of the trainer that failed first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer.errors import GateRefused

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
TORCHRUN = [sys.executable, "-m", "trainer.torchrun", "--standalone", "--nproc-per-node", "2"]


def exit_code(*command: str) -> int:
    """The exit code of torchrun with two processes that run a command."""
    return subprocess.run([*TORCHRUN, *command], env=ENVIRONMENT).returncode


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("test $RANK = 1 && exec sleep infinity; exit 42", 42),
        ("test $RANK = 0 && exec sleep infinity; sh -c 'kill -KILL $PPID'", 137),
    ],
)
def test_torchrun_exits_as_the_process_that_failed_first(script: str, code: int) -> None:
    assert exit_code("--no-python", "sh", "-c", script) == code


def test_torchrun_waits_after_sigterm_for_its_processes_and_exits_as_they_do(tmp_path: Path) -> None:
    script = "trap 'touch saved-$RANK; exit 143' TERM; touch began-$RANK; while :; do sleep 0.1; done"
    with subprocess.Popen([*TORCHRUN, "--no-python", "sh", "-c", script], cwd=tmp_path, env=ENVIRONMENT) as process:
        while len(list(tmp_path.glob("began-*"))) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 143
    assert len(list(tmp_path.glob("saved-*"))) == 2


def test_a_signal_to_any_of_its_processes_has_the_first_one_save_and_end(tmp_path: Path) -> None:
    assert exit_code("-m", "tests.trainer.ending", str(tmp_path / "saved"), "signal") == 143
    assert (tmp_path / "saved").read_text() == "3"


def test_the_exit_code_is_rank_0s_even_if_that_one_takes_longer_to_end(tmp_path: Path) -> None:
    ending = ("-m", "tests.trainer.ending", str(tmp_path / "unused"), "refused")
    assert exit_code(*ending) == GateRefused.exit_code


def test_processes_do_not_import_from_the_current_folder_if_torchrun_does_not(tmp_path: Path) -> None:
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer/__init__.py").write_text("raise SystemExit('this is not ours')")
    command = [TORCHRUN[0], "-P", *TORCHRUN[1:], "-m", "trainer", "--", "evolve", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
