"""The policy that the settings ask for."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from evoquality.contract import InfoResponse
from service.prompts import Profile
from trainer.settings.evolve import EvolveSettings
from trainer.training import distributed
from trainer.training.full import FullPolicy
from trainer.training.lora import LoraPolicy
from trainer.training.policy import Policy


def load_policy(
    checkpoint: Path, profile: Profile, settings: EvolveSettings, seed: int, engine: InfoResponse
) -> Policy:
    """The policy at the beginning of a round. `seed` draws the adapter's first weights; `engine` samples
    its rollouts, and scales pictures as the policy must."""
    torch.set_num_threads(settings.threads or max(1, len(os.sched_getaffinity(0)) // 2 // distributed.neighbours()))
    pixels = {"min_pixels": engine.min_pixels, "max_pixels": engine.max_pixels}
    dtype = getattr(torch, settings.dtype)
    if settings.policy == "full":
        return FullPolicy(
            checkpoint, profile, train_vision=settings.train_vision, device=settings.device,
            reference_device=settings.reference_device, dtype=dtype,
            recompute=settings.gradient_checkpointing, pixels=pixels,
        )  # fmt: skip
    return LoraPolicy(
        checkpoint, profile, rank=settings.rank, seed=seed, device=settings.device, dtype=dtype,
        recompute=settings.gradient_checkpointing, pixels=pixels,
    )  # fmt: skip
