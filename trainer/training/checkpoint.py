"""What a killed training resumes from: the policy's trainable weights, the optimizer, the steps done."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from trainer.training.policy import Policy


def save(file: Path, policy: Policy, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Replaces the checkpoint atomically."""
    state = {"steps": steps, "policy": policy.state(), "optimizer": optimizer.state_dict()}
    beside = file.with_name(f".{file.name}.partial")
    with beside.open("wb") as opened:
        torch.save(state, opened)
        opened.flush()
        os.fsync(opened.fileno())
    beside.replace(file)


def resume(file: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> int:
    """Takes up the last checkpoint, if there is one. Returns the steps done."""
    if not file.exists():
        return 0
    state = torch.load(file, weights_only=True, map_location=policy.device)
    policy.set_state(state["policy"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["steps"])
