"""What bfloat16 keeps: of an update merged into bfloat16 weights, and of the shared prefix on a deep model.

`merge_kept` is the part of an adapter's update, of rms 1e-4, that the merged checkpoint holds: <written, update> /
<update, update> over all adapted weights, whose rms is 0.06. `nearest_kept` is what rounding to the nearest would keep.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from PIL import Image
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from service.prompts import PROFILES
from tests.benchmarks.checkpoint.architecture import build_config, build_processor, save_checkpoint
from trainer.training.network import load_model
from trainer.training.policy import LoraPolicy, adapted_layers
from trainer.training.self_check import SHARED

LAYERS, WIDTH, LOGIT_DEVIATION = 28, 128, 4.0
UPDATE_RMS = 1e-4
_PLAIN = PROFILES["plain"]


def measure() -> dict[str, Any]:
    """`merge_kept`, `shared_prefix_taken` and the figures behind them."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = deep_checkpoint(Path(folder) / "deep")
        return merge_kept(checkpoint, Path(folder) / "merged") | shared_prefix_taken(checkpoint)


def deep_checkpoint(
    folder: Path, layers: int = LAYERS, deviation: float = LOGIT_DEVIATION, dtype: torch.dtype = torch.bfloat16
) -> Path:
    """A random Qwen2.5-VL of so many language layers, whose logits have this standard deviation."""
    processor = build_processor()
    config = build_config(processor.tokenizer)
    text = config.text_config
    text.num_hidden_layers, text.layer_types = layers, ["full_attention"] * layers
    text.hidden_size = config.vision_config.out_hidden_size = WIDTH
    text.tie_word_embeddings = config.tie_word_embeddings = False
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    with torch.no_grad():
        ids = torch.arange(100, 228)[None]
        model.lm_head.weight.mul_(deviation / model(input_ids=ids).logits.std())
    save_checkpoint(model.to(dtype), processor, folder)
    return folder


def shared_prefix_taken(checkpoint: Path) -> dict[str, Any]:
    """Whether the policy's self-check takes the shared prefix, and what it measured."""
    policy = LoraPolicy(checkpoint, _PLAIN, rank=8, seed=0, dtype=torch.bfloat16)
    found = policy.self_check(Image.fromarray(np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)))
    return {"shared_prefix_taken": found.way == SHARED, "self_check": found.as_dict()}


def merge_kept(checkpoint: Path, folder: Path) -> dict[str, Any]:
    """The part of an adapter's update that its merged checkpoint holds, and that rounding to the nearest would keep."""
    policy = LoraPolicy(checkpoint, _PLAIN, rank=8, seed=0)
    updates = {name: give_update(layer) for name, layer in adapted_layers(policy.network.model)}
    policy.save_weights(folder)
    before, after = load_model(checkpoint, torch.float32), load_model(folder, torch.float32)
    sums = np.zeros(3)
    for name, update in updates.items():
        weight, merged = (model.get_submodule(name).weight.detach() for model in (before, after))
        nearest = (weight + update).bfloat16().float()
        sums += [float((update * moved).sum()) for moved in (update, merged - weight, nearest - weight)]
    return {"merge_kept": sums[1] / sums[0], "nearest_kept": sums[2] / sums[0]}


@torch.no_grad()
def give_update(layer: LoraLayer, rms: float = UPDATE_RMS) -> Tensor:
    """Gives a layer's adapter a random update of that rms."""
    down, up = (part["default"].weight for part in (layer.lora_A, layer.lora_B))
    torch.nn.init.normal_(down)
    torch.nn.init.normal_(up)
    up.mul_(rms / layer.get_delta_weight("default").square().mean().sqrt())
    return layer.get_delta_weight("default")
