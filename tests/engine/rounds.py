"""Tiny rounds against the real service, as processes that can be killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from service.versions.store import VersionStore
from tests.engine.running import Running
from trainer.files import read_json, read_jsonl

STEPS = 6
_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload(["tests.engine.rounds", "trainer.cli", "trainer.evolve"])
"""Imports torch once, in a process that every trainer is forked from: a start costs no seconds."""


@dataclass(frozen=True)
class TinyRound:
    """One round of 20 images, 7 groups of 4 and 6 steps, in a folder."""

    service: Running
    pool: Path
    run: Path

    @property
    def folder(self) -> Path:
        return self.run / "round-1"

    @property
    def candidate(self) -> str:
        return str(read_json(self.folder / "candidate.json")["id"])

    def start(self, *more: object, largest_file: int | None = None) -> BaseProcess:
        """Starts the trainer, or starts it again. `more` are flags for it."""
        arguments = [
            "evolve", "--pool", self.pool, "--run", self.run, "--store", self.service.store.root,
            "--operator", self.service.operator_url, "--rounds", 1,
            "--variants", 3, "--groups", STEPS, "--group-size", 4, "--held-back-groups", 1, "--samples", 4,
            "--checkpoint-every", 2, "--rank", 8, "--gate-unreadable", 1, "--gate-agreement-loss", 1,
            "--gate-spread", 0, "--gate-largest-spread", 100, "--gate-drift", 4, "--gate-position-bias", 1,
            *more,
        ]  # fmt: skip
        process = _FORKSERVER.Process(target=_evolve, args=([str(part) for part in arguments], self.run, largest_file))
        process.start()
        return process

    def finish(self, *more: object, largest_file: int | None = None) -> int:
        """Runs it to its end. Returns the exit code."""
        process = self.start(*more, largest_file=largest_file)
        process.join(200)
        assert process.exitcode is not None, "the round does not end"
        return process.exitcode

    def signal_when(self, reached: Callable[[], bool], number: int, delay: float = 0, *more: object) -> int:
        """Starts it and sends a signal `delay` seconds after it got there. Returns the exit code."""
        process = self.start(*more)
        deadline = time.monotonic() + 60
        while not reached():
            assert process.is_alive(), f"the round ended ({process.exitcode}) before it got there"
            assert time.monotonic() < deadline, "the round never got there"
            time.sleep(0.001)
        time.sleep(delay)
        if process.pid is not None:
            os.kill(process.pid, number)
        process.join(300)
        assert process.exitcode is not None
        return process.exitcode

    def has(self, name: str, lines: int = 0) -> bool:
        """True if a file of the round is there, with at least so many lines."""
        file = self.folder / name
        return file.exists() and (not lines or len(file.read_bytes().splitlines()) >= lines)

    def stage(self) -> str:
        """The first stage that has not ended."""
        ends = {
            "pool": self.has("pool.jsonl"), "pairs": self.has("pairs.json"), "votes": self.has("votes.done"),
            "train": self.has("train/steps.jsonl", STEPS), "gate": self.has("gate.json"),
            "candidate": self.has("candidate.json"), "promotion": self.has("promotion.json"),
        }  # fmt: skip
        return next((name for name, ended in ends.items() if not ended), "done")

    def steps(self) -> list[int]:
        return [row["step"] for row in read_jsonl(self.folder / "train" / "steps.jsonl")]

    def leftovers(self) -> set[str]:
        """The files with this run's mark in the store, and halves of its files."""
        mark = read_json(self.run / "id.json")
        marked = self.service.store.root.glob(f"**/*{mark}-*")
        return {path.name for path in (*marked, *self.run.glob("round-1/**/*.partial"))}


def apart(store: VersionStore, one: str, other: str) -> float:
    """The largest difference of any two weights."""
    weights = [load_file(store.path(version) / "model.safetensors") for version in (one, other)]
    return max(float(np.abs(weights[0][name] - weights[1][name]).max()) for name in weights[0])


def _evolve(arguments: list[str], run: Path, largest_file: int | None) -> None:
    """In the new process: the trainer's own command."""
    from trainer.cli import app

    os.environ["OMP_NUM_THREADS"] = "1"
    sys.argv = ["evoquality-trainer", *arguments]
    with run.with_suffix(".log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    app()


def moments(seed: int, *conditions: tuple[Callable[[], bool], float]) -> list[tuple[Callable[[], bool], float]]:
    """Each condition with a random delay, up to the one given."""
    draw = random.Random(seed)
    return [(reached, draw.uniform(0, longest)) for reached, longest in conditions]
