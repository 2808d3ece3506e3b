"""The policy that the settings ask for."""

from __future__ import annotations

from pathlib import Path

import torch

from service.prompts import Profile
from trainer.settings import EvolveSettings
from trainer.training.full import FullPolicy
from trainer.training.lora import LoraPolicy
from trainer.training.policy import Policy


def load_policy(checkpoint: Path, profile: Profile, settings: EvolveSettings, seed: int) -> Policy:
    """The policy at the beginning of a round. `seed` draws the adapter's first weights."""
    dtype = getattr(torch, settings.dtype)
    if settings.policy == "full":
        return FullPolicy(
            checkpoint, profile, train_vision=settings.train_vision, device=settings.device,
            reference_device=settings.reference_device, dtype=dtype,
            recompute=settings.gradient_checkpointing,
        )  # fmt: skip
    return LoraPolicy(
        checkpoint, profile, rank=settings.rank, seed=seed, device=settings.device, dtype=dtype,
        recompute=settings.gradient_checkpointing,
    )  # fmt: skip
