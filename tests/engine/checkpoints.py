"""Adapters and versions made from a checkpoint with numpy and safetensors, without loading a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Tensors = dict[str, NDArray[np.float32]]
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


def rewritten(source: Path, target: Path, change: Callable[[Tensors], None]) -> Path:
    """A copy of a checkpoint whose tensors `change` has edited."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("manifest.json"))
    tensors = load_file(target / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def perturbed(source: Path, target: Path, seed: int, scale: float = 0.02) -> Path:
    """A checkpoint that answers differently but still reads like the first: noise on the language model."""
    noise = np.random.default_rng(seed)

    def change(tensors: Tensors) -> None:
        for name in sorted(tensors):
            if name.endswith("_proj.weight") and not name.startswith("visual."):
                spread = scale * tensors[name].std()
                tensors[name] += spread * noise.standard_normal(tensors[name].shape, np.float32)

    return rewritten(source, target, change)
