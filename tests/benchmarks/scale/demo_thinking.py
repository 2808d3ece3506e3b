"""The gain of `make demo-thinking`: relative, of the weighted PLCC, after one round of the thinking model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from trainer.files import read_json

RUN = Path("runs/demo-thinking")


def demo_gain_percent(run: Path = RUN) -> float:
    """The gain of the demo in the folder `run`, in percent; runs the demo if none has finished there.

    Raises:
        subprocess.CalledProcessError: the demo failed.
    """
    if not (run / "seconds.json").exists():
        command = [sys.executable, "-m", "trainer.demo.run", "--model", "thinking", "--run", str(run)]
        subprocess.run(command, check=True)
    return float(read_json(run / "report.json")["relative_gain_percent"])
