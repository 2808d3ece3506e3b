"""Whole GRPO steps, rollouts included: this trainer's own command against a real service, and TRL's GRPOTrainer.

Both get the two cores: engine and trainer one each, TRL both.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.benchmarks.train.setting import (
    BETA,
    CLIP_HIGH,
    CLIP_LOW,
    GAMMA,
    IMAGES,
    LEARNING_RATE,
    RANK,
    SAMPLES,
    SIDE,
    Setting,
)
from tests.engine.running import Running, running
from trainer.files import read_jsonl

QUIET = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "VLLM_LOGGING_LEVEL": "ERROR"}


@dataclass(frozen=True, slots=True)
class Steps:
    """Seconds of each step in steady state, and what was logged about them."""

    seconds: list[float]
    logged: list[dict[str, Any]]


@contextmanager
def service(checkpoint: Path, folder: Path, **settings: str) -> Iterator[Running]:
    """The real service on a checkpoint; `settings` as its environment variables name them."""
    env = {f"EVOQUALITY_{name.upper()}": value for name, value in settings.items()}
    with running(
        folder / "store", folder / "service.log", {**QUIET, **env, "EVOQUALITY_CHECKPOINT": str(checkpoint)}
    ) as served:
        yield served


def serving_large(checkpoint: Path, folder: Path) -> AbstractContextManager[Running]:
    """The service for pictures of 448 px."""
    return service(checkpoint, folder, max_pixels=str(SIDE * SIDE), max_model_len="1024")


def ours(setting: Setting, served: Running) -> Steps:
    """`evoquality-trainer evolve` as it comes, over the votes that the setting has cast, up to its last step but one.

    A step's seconds are from the line that the one before wrote into steps.jsonl to its own. The first two are left
    out, and the last: in steady state the rollouts of the next step overlap.
    """
    command = [
        str(Path(sys.executable).with_name("evoquality-trainer")), "evolve",
        "--pool", str(setting.pictures), "--run", str(setting.run), "--store", str(served.store.root),
        "--operator", served.operator_url, "--rounds", "1",
        "--group-size", str(IMAGES), "--samples", str(SAMPLES), "--rank", str(RANK), "--beta", str(BETA),
        "--gamma", str(GAMMA), "--learning-rate", str(LEARNING_RATE), "--clip-low", str(CLIP_LOW),
        "--clip-high", str(CLIP_HIGH),
    ]  # fmt: skip
    log, wanted, ended = setting.run / "round-1" / "train" / "steps.jsonl", len(setting.groups) - 1, []
    with _process(command, setting.folder / "ours.log", threads=1) as process:
        while len(ended) < wanted and process.poll() is None:
            lines = log.read_text().count("\n") if log.exists() else 0
            ended += [time.perf_counter()] * (lines - len(ended))
            time.sleep(0.02)
    if len(ended) < wanted:
        raise RuntimeError(f"the trainer ended early:\n{(setting.folder / 'ours.log').read_text()[-3000:]}")
    seconds = [after - before for before, after in pairwise(ended)]
    return Steps(seconds[1:], list(read_jsonl(log))[2:wanted])


def trl(setting: Setting) -> Steps:
    """TRL's trainer; its first step is left out."""
    out = setting.folder / "trl.jsonl"
    command = [sys.executable, "-m", "tests.benchmarks.train.trl_trainer", str(setting.folder), str(out)]
    with _process(command, setting.folder / "trl.log", threads=len(os.sched_getaffinity(0))) as process:
        process.wait()
    if process.returncode:
        raise RuntimeError(f"TRL ended with {process.returncode}:\n{(setting.folder / 'trl.log').read_text()[-3000:]}")
    rows = list(read_jsonl(out))[1:]
    return Steps([row["seconds"] for row in rows], rows)


@contextmanager
def _process(command: list[str], log: Path, threads: int) -> Iterator[subprocess.Popen[bytes]]:
    """Ended with the block."""
    env = {**os.environ, **QUIET, "OMP_NUM_THREADS": str(threads)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(120)
