"""Rank 1 of two is told to end, as if its pod alone were evicted: `torchrun -m tests.trainer.ending FILE`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from trainer.cli import in_sentences
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


def count(file: Path) -> None:
    """Up to fifty steps, or as many as there were before a signal."""
    with built(Counter) as counter:
        try:
            for _ in range(50):
                counter.step()
        except Terminated:
            counter.save(file)


if __name__ == "__main__":
    in_sentences(lambda: run_on_main("cpu", "float32", lambda: count(Path(sys.argv[1]))))
