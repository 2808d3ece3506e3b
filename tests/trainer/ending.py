"""Two processes that end early: `torchrun -m tests.trainer.ending FILE signal`, or `... FILE refused`."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from pathlib import Path

from trainer.cli import in_sentences
from trainer.errors import GateRefused
from trainer.termination import Terminated
from trainer.training.distributed import built, is_main, on_all_ranks, rank, run_on_main


class Counter:
    """Stands for a learner."""

    def __init__(self) -> None:
        self.steps = 0

    @on_all_ranks
    def step(self) -> None:
        """The third one is interrupted on rank 1."""
        self.steps += 1
        if rank() == 1 and self.steps == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    @on_all_ranks
    def save(self, file: Path) -> None:
        """Writes how many steps were done."""
        if is_main():
            file.write_text(str(self.steps))


def linger(seconds: float = 2) -> None:
    """Rank 0 takes its time to exit after its connections are closed, as on a busy machine."""
    if is_main():
        atexit.register(time.sleep, seconds)


def refuse(_: Path) -> None:
    """Rank 0 ends with an error of its own while the other waits for its next call."""
    linger()
    with built(Counter) as counter:
        counter.step()
        raise GateRefused("the candidate is worse")


def count(file: Path) -> None:
    """Up to fifty steps, or as many as there were before rank 1 got SIGTERM, as if only its pod were evicted."""
    linger()
    with built(Counter) as counter:
        try:
            for _ in range(50):
                counter.step()
        except Terminated:
            counter.save(file)


if __name__ == "__main__":
    work = {"signal": count, "refused": refuse}[sys.argv[2]]
    in_sentences(lambda: run_on_main("cpu", "float32", lambda: work(Path(sys.argv[1]))))
