"""How scores are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, CliImplicitFlag

from trainer.settings.service import CONFIG, Count


def by_policy(chosen: dict[str, Any]) -> float:
    """An adapter takes about ten times the rate of all weights."""
    return 1e-4 if chosen.get("policy") == "full" else 1e-3


class TrainingSettings(BaseSettings):
    """The online stage: what is trained, on what, and where it computes."""

    model_config = CONFIG

    labels: Literal["hard", "soft"] = "hard"
    """What training makes of a pair's votes: its majority, as the paper does, or, an ablation, their share. For that
    all K sampled votes are cast, and --tie-margin is the gate's alone."""
    reward: Literal["fidelity", "regression"] = "fidelity"
    """What a sampled score is rewarded for: ordering images as the votes do, or, an ablation of the paper's, nearness
    to the mean of the image's own scores, sampled before the training. That one asks for no votes but the gate's."""
    samples: int = Field(default=16, ge=2, le=64)
    """K of the online stage: scores sampled for each image of a step (the paper: 32)."""
    epochs: Count = 1
    """How often each group is trained on."""
    policy: Literal["lora", "full"] = "lora"
    """What is trained: `lora` an adapter, whose answers the serving engine samples beside its users'; `full` all
    weights, as the paper does, sampled by an engine of their own (`evoquality serve --role rollout`)."""
    learning_rate: float = Field(default_factory=by_policy, gt=0)
    """Of AdamW, falling linearly to zero. Unset: 1e-3 with policy lora, 1e-4 with full (the paper, 7B: 3e-7)."""
    beta: float = Field(default=0.02, ge=0)
    """Weight of the KL penalty to the model the round started from (the paper: 0.05)."""
    gamma: float = Field(default=0.01, ge=0)
    """Added to the variance in the Thurstone probability."""
    normalise: CliImplicitFlag[bool] = True
    """Divide advantages by their group's standard deviation, as the paper does."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """Trust region: the probability ratio may fall to 1 - this."""
    clip_high: float = Field(default=0.28, gt=0)
    """Trust region: the probability ratio may rise to 1 + this."""
    truncation: float = Field(default=2.0, ge=1)
    """Largest weight of a token by its probability ratio (truncated importance sampling)."""
    overlap: CliImplicitFlag[bool] = True
    """Sample the next step's scores while this one updates, from the policy one step behind. Without: strictly
    on-policy, and slower."""
    images_per_pass: Count = 16
    """Images of a step in one forward and backward pass; fewer need less memory and change nothing else."""
    rank: int = Field(default=32, ge=1, le=64)
    """Policy lora: rank of the adapter."""
    rollout_operator: str | None = None
    """Policy full: address of the rollout engine's operators' routes; of several, separated by commas."""
    handover: Path | None = None
    """Policy full: folder in which it is handed weights, its own `--handover`; the run's last ones stay there. Default:
    handover in the store."""
    train_vision: CliImplicitFlag[bool] = False
    """Policy full: train the vision tower too. A high learning rate destroys it before the scores improve."""
    reference_device: str | None = None
    """Policy full, one process: where the frozen model of the KL penalty computes, for example cpu. Default: device."""
    checkpoint_every: Count = 10
    """Steps between the checkpoints a killed run resumes from."""
    device: str = "cpu"
    """Where the torch policy computes, for example cuda:1; under torchrun cuda, each process on its own."""
    threads: Count | None = None
    """Threads of the torch policy on CPU; unset: half the cores that the process may use, the others are the service's;
    torchrun's processes share them. Too many threads wait for each other longer than they work."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the passes through the policy: bfloat16 on a GPU. What is trained stays float32."""
    gradient_checkpointing: CliImplicitFlag[bool] = False
    """Compute activations again for the backward pass: less memory, more time, the same gradients."""
