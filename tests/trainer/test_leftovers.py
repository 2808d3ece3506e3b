"""A run's folder belongs to one trainer at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainer.leftovers import alone_in

HOLD = """
import sys
from pathlib import Path
from trainer.leftovers import alone_in
with alone_in(Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read()
"""


def test_a_folder_with_a_trainer_in_it_is_refused_until_that_one_is_gone_even_by_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(ValueError, match="another trainer is at work"), alone_in(tmp_path):
            pass
        other.kill()
        other.wait()
        with alone_in(tmp_path):
            pass
