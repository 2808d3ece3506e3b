"""Versions made of a checkpoint by hand, for shows and tests: numpy and safetensors, no model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Tensors = dict[str, NDArray[np.float32]]


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
