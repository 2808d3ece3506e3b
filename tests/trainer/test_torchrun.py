"""What `python -m trainer.torchrun` exits with: as the trainer that failed first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
TORCHRUN = [sys.executable, "-m", "trainer.torchrun", "--standalone", "--nproc-per-node", "2", "--no-python"]


def exit_code(script: str) -> int:
    """Of two processes that run a shell script."""
    return subprocess.run([*TORCHRUN, "sh", "-c", script], timeout=100).returncode


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("test $RANK = 1 && exec sleep 60; exit 42", 42),
        ("test $RANK = 1 && exit 3; exit 43", 43),
        ("test $RANK = 0 && exec sleep 60; sh -c 'kill -KILL $PPID'", 137),
    ],
)
def test_torchrun_exits_as_the_trainer_that_failed_first(script: str, code: int) -> None:
    assert exit_code(script) == code


def test_torchrun_that_is_told_to_end_waits_for_its_trainers_and_exits_as_they_do(tmp_path: Path) -> None:
    script = "trap 'touch saved-$RANK; exit 143' TERM; touch began-$RANK; while :; do sleep 0.1; done"
    with subprocess.Popen([*TORCHRUN, "sh", "-c", script], cwd=tmp_path, env=ENVIRONMENT) as process:
        while len(list(tmp_path.glob("began-*"))) < 2:
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert len(list(tmp_path.glob("saved-*"))) == 2


def test_a_signal_to_any_of_its_processes_has_the_first_one_save_and_end(tmp_path: Path) -> None:
    command = [*TORCHRUN[:-1], "-m", "tests.trainer.ending", str(tmp_path / "saved")]
    assert subprocess.run(command, timeout=100, env=ENVIRONMENT).returncode == 143
    assert (tmp_path / "saved").read_text() == "3"
