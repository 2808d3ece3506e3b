"""Shared prefix against one row a completion: a group's log-probabilities, forward and backward, as a ratio."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from service.prompts import PROFILES
from trainer.demo.architecture import build_model, build_processor, save_checkpoint
from trainer.training.policy import Policy

ANSWERS = [[300, 301, 302, 303, 2]] * 16
REPEATS = 7


def main() -> None:
    """Prints medians and their ratio; the baseline asks for one answer at a time."""
    with tempfile.TemporaryDirectory() as folder:
        processor = build_processor()
        save_checkpoint(build_model(processor, seed=0), processor, Path(folder))
        policy = Policy(Path(folder), PROFILES["plain"], rank=32, seed=0)
    prompt = policy.encode("score", [Image.new("RGB", (112, 112), "gray")])

    def shared() -> None:
        torch.autograd.backward(policy.logprobs(prompt, ANSWERS)[0].sum())

    def one_row_each() -> None:
        torch.autograd.backward(sum(policy.logprobs(prompt, [answer])[0].sum() for answer in ANSWERS))

    fast, slow = _medians(shared, one_row_each)
    print(
        f"shared prefix, K = {len(ANSWERS)}: {fast * 1e3:.0f} ms; one row each: {slow * 1e3:.0f} ms; {slow / fast:.1f}x"
    )


def _medians(*paths: Callable[[], None]) -> list[float]:
    times: list[list[float]] = [[] for _ in paths]
    for _ in range(REPEATS):
        for path, taken in zip(paths, times, strict=True):
            began = time.perf_counter()
            path()
            taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in times]


if __name__ == "__main__":
    main()
