"""What a killed training resumes from: the policy's trainable weights, the optimizer, the steps done, and the rollouts
that the next step trains on: the policy that they were sampled from may be gone.

The file holds whole tensors: any number of processes may resume it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.files import replacing
from trainer.training import distributed, sharding
from trainer.training.policy import Policy

Ahead = dict[str, Any] | None
"""Rollouts as plain values, if any overlap."""


def save(file: Path, policy: Policy, optimizer: torch.optim.Optimizer, steps: int, ahead: Ahead) -> None:
    """Replaces the checkpoint atomically. `ahead` are the next step's rollouts. All ranks must call it."""
    kept = sharding.gathered_optimizer(policy.network, optimizer)
    state = {"steps": steps, "policy": policy.state(), "optimizer": kept, "ahead": ahead}
    if not distributed.leads():
        return
    with replacing(file) as opened:
        torch.save(state, opened)


def resume(file: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> tuple[int, Ahead]:
    """Takes up the last checkpoint, if rank 0 finds one. All ranks must call it.

    Returns:
        The steps done, and on rank 0 the next step's rollouts.

    Raises:
        ValueError: the checkpoint holds other weights than the policy trains.
    """
    state = torch.load(file, weights_only=True, map_location="cpu") if distributed.leads() and file.exists() else None
    if state:
        _check_fits(file, state["policy"], policy)
    steps = distributed.from_leader(state and state["steps"])
    if steps is None:
        return 0, None
    policy.set_state(state["policy"] if state else {})
    sharding.scatter_optimizer(policy.network, optimizer, state["optimizer"] if state else {})
    return int(steps), state and state["ahead"]


def _check_fits(file: Path, weights: Mapping[str, Tensor], policy: Policy) -> None:
    trained = {name: each.shape for name, each in policy.network.named_parameters() if each.requires_grad}
    if {name: each.shape for name, each in weights.items()} != trained:
        raise ValueError(
            f"{file} was written with another --policy, --rank or --train-vision; give those it began with, or "
            "another --run"
        )
