"""What a killed training resumes from: the policy's trainable weights, the optimizer, the steps done.

The file holds whole tensors: any number of processes may resume it.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from trainer.training import distributed
from trainer.training.policy import Policy


def save(file: Path, policy: Policy, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Replaces the checkpoint atomically. All ranks must call it."""
    kept = distributed.gathered_optimizer(policy.network, optimizer)
    state = {"steps": steps, "policy": policy.state(), "optimizer": kept}
    if not distributed.leads():
        return
    beside = file.with_name(f".{file.name}.partial")
    with beside.open("wb") as opened:
        torch.save(state, opened)
        opened.flush()
        os.fsync(opened.fileno())
    beside.replace(file)


def resume(file: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> int:
    """Takes up the last checkpoint, if rank 0 finds one. Returns the steps done. All ranks must call it."""
    state = torch.load(file, weights_only=True, map_location="cpu") if distributed.leads() and file.exists() else None
    steps = distributed.from_leader(state and state["steps"])
    if steps is None:
        return 0
    policy.set_state(state["policy"] if state else {})
    distributed.scatter_optimizer(policy.network, optimizer, state["optimizer"] if state else {})
    return int(steps)
