"""Memory and disk that Qwen2.5-VL 3B, 7B and 32B need, computed from their published dimensions.

Source of the dimensions: config.json of Qwen/Qwen2.5-VL-{3B,7B,32B}-Instruct (Qwen2.5-VL Technical Report, arXiv
2502.13923, table 1). Parameters are counted on torch's meta device, without weights. Nothing here was measured on a
GPU; memory that CUDA and the allocator keep is left out. `results/sizes.json` holds what was counted with more effort:
activations (torch's saved tensors of a layer on the meta device) and the operations of a round of 7B.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from service.configuration.settings import Settings
from trainer.files import read_json
from trainer.training.policy import LANGUAGE_LINEAR

Kind = Literal["lora", "full"]

COUNTED = Path(__file__).with_name("results") / "sizes.json"
DEFAULTS = Settings()
MAX_MODEL_LEN = 4096
BATCHED_TOKENS = 8192
"""Tokens of one engine pass, see `engine_args`."""
RANK = 32
GIB = 2**30
GPUS = {"24 GB": 22, "48 GB": 44, "80 GB": 79, "141 GB": 139}
"""GiB that torch reports of an L4, L40S, H100 (A100) and H200, rounded down."""
TENSOR_PARALLEL = (1, 2, 4)
"""8 divides neither the 28 heads of 7B nor the 3,420 columns of its vision tower."""
PROCESSES = (1, 2, 4, 8, 16)

SPECIAL_IDS = {
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "image_token_id": 151655,
    "video_token_id": 151656,
}


def _published(
    hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocabulary: int, vision: int, tied: bool
) -> Qwen2_5_VLConfig:
    text = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": tied,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }
    tower = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": vision,
        "num_heads": 16,
        "out_hidden_size": hidden,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }
    return Qwen2_5_VLConfig(text_config=text, vision_config=tower, **SPECIAL_IDS, tie_word_embeddings=tied)


PUBLISHED = {
    "3B": _published(2048, 11008, 36, 16, 2, 151936, 3420, tied=True),
    "7B": _published(3584, 18944, 28, 28, 4, 152064, 3420, tied=False),
    "32B": _published(5120, 27648, 64, 40, 8, 152064, 3456, tied=False),
}


def weightless(config: Qwen2_5_VLConfig) -> PreTrainedModel:
    """The model in bfloat16 on the meta device: shapes without values."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            return Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    finally:
        torch.set_default_dtype(before)


def parameters(module: nn.Module) -> int:
    """Number of parameters; tied ones count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def adapter_parameters(model: PreTrainedModel, rank: int) -> int:
    """Number of parameters of a LoRA adapter made by the trainer."""
    adapted = (module for name, module in model.named_modules() if re.fullmatch(LANGUAGE_LINEAR, name))
    return sum(rank * (linear.in_features + linear.out_features) for linear in adapted)


def trained_parameters(model: PreTrainedModel) -> int:
    """Parameters that full fine-tuning trains without `--train-vision`: all but the vision tower before its merger."""
    return parameters(model) - parameters(model.model.visual) + parameters(model.model.visual.merger)


def token_bytes(config: Qwen2_5_VLConfig) -> int:
    """Bytes of the keys and values of one token in bfloat16."""
    text = config.text_config
    return 2 * text.num_hidden_layers * text.num_key_value_heads * (text.hidden_size // text.num_attention_heads) * 2


@dataclass(frozen=True, slots=True)
class Serving:
    """Bytes that an engine in role `serve` needs: `working` on each GPU, the rest spread over its GPUs."""

    weights: int
    token: int
    """Keys and values of one token."""
    adapters: int
    """Adapter slots: `max_loras` of rank `max_lora_rank`."""
    working: int
    """Intermediate values of one layer for the longest pass."""

    def sequences(self, gpu_gib: float, gpus: int) -> int:
        """Number of full-length sequences that fit in the cache; 0 means that the engine does not start."""
        room = DEFAULTS.gpu_memory_utilization * gpu_gib * GIB - (self.weights + self.adapters) / gpus - self.working
        return max(0, int(room * gpus / (self.token * MAX_MODEL_LEN)))


@cache
def serving(name: str) -> Serving:
    """An engine for a published model."""
    config, model = PUBLISHED[name], weightless(PUBLISHED[name])
    text = config.text_config
    slots = DEFAULTS.max_loras * adapter_parameters(model, DEFAULTS.max_lora_rank)
    working = BATCHED_TOKENS * (3 * text.intermediate_size + 4 * text.hidden_size)
    return Serving(2 * parameters(model), token_bytes(config), 2 * slots, 2 * working)


@dataclass(frozen=True, slots=True)
class Training:
    """Bytes that a trainer needs; FSDP2 spreads `states` over its processes, the rest is on each."""

    states: int
    """Weights, gradients, AdamW's moments, the frozen reference."""
    gathered: int
    """Gathered by FSDP while it computes: embeddings and head, two layers, the gradients of the larger."""
    activations: int
    """Kept for the backward pass with `--gradient-checkpointing`, and the answers' distributions."""
    checkpoint: int
    """`checkpoint.pt`: trained weights and both moments in float32."""
    loading: int
    """Host memory per process at the start."""

    def on_each(self, processes: int) -> float:
        """Bytes on each GPU."""
        return self.states / processes + (self.gathered if processes > 1 else 0) + self.activations


@cache
def training(name: str, kind: Kind) -> Training:
    """`lora`: bfloat16 with a float32 adapter of rank 32. `full`: float32 beside a bfloat16 reference."""
    model = weightless(PUBLISHED[name])
    every = parameters(model)
    layer = parameters(model.model.language_model.layers[0])
    root = parameters(model.model.language_model.embed_tokens)
    root *= 1 if model.config.tie_word_embeddings else 2
    trained = adapter_parameters(model, RANK) if kind == "lora" else trained_parameters(model)
    if kind == "lora":
        states, gathered = 2 * every + 16 * trained, 2 * (root + 2 * layer)
    else:
        states, gathered = 4 * every + 12 * trained + 2 * every, 2 * (root + 2 * layer) + 4 * max(root, layer)
    activations = read_json(COUNTED)["activation_bytes"][name]
    return Training(states, gathered, activations, 12 * trained, (2 if kind == "lora" else 4) * every)
