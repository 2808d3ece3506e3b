"""Adapters for the tests, made of a checkpoint by hand: numpy and safetensors, no model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from trainer.demo.checkpoints import Tensors, rewritten

TARGETS = ("q_proj", "v_proj", "down_proj")
RANK = 4


def adapter(source: Path, target: Path, seed: int, scale: float = 0.25) -> Path:
    """A PEFT adapter for a part of the language model's linear layers."""
    noise = np.random.default_rng(seed)
    tensors: Tensors = {}
    for name, weight in sorted(load_file(source / "model.safetensors").items()):
        if _is_target(name):
            module = name.removeprefix("model.").removesuffix(".weight")
            prefix = f"base_model.model.model.language_model.{module}"
            rows, columns = weight.shape
            tensors[f"{prefix}.lora_A.weight"] = noise.standard_normal((RANK, columns), np.float32) * 0.1
            tensors[f"{prefix}.lora_B.weight"] = noise.standard_normal((rows, RANK), np.float32) * scale
    target.mkdir(parents=True)
    save_file(tensors, target / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": list(TARGETS)}
    (target / "adapter_config.json").write_text(json.dumps({**config, "task_type": "CAUSAL_LM", "bias": "none"}))
    return target


def merged(source: Path, trained: Path, target: Path) -> Path:
    """The checkpoint with an adapter added to its weights."""
    parts = load_file(trained / "adapter_model.safetensors")

    def change(tensors: Tensors) -> None:
        for name in tensors:
            if _is_target(name):
                module = name.removeprefix("model.").removesuffix(".weight")
                prefix = f"base_model.model.model.language_model.{module}"
                tensors[name] += parts[f"{prefix}.lora_B.weight"] @ parts[f"{prefix}.lora_A.weight"]

    return rewritten(source, target, change)


def _is_target(name: str) -> bool:
    return name.startswith("model.layers.") and name.split(".")[-2] in TARGETS and name.endswith(".weight")
