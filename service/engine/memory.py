"""The memory that an engine needs on a GPU, computed from a checkpoint's config.json. Imports no model library.

Left out: what CUDA and the allocator keep, for which the setting `gpu_memory_utilization` leaves room.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.configuration.settings import Settings

BATCHED_TOKENS = 8192
"""Tokens of a pass of the engine, if `max_model_len` is not larger."""
_FLOAT_LOGITS = 3 * 4
"""Bytes for each token of the vocabulary and answer that is sampled: logits, probabilities and their order."""
_GRAPH_BYTES = 2**30
"""Of CUDA graphs, about."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of a Qwen2.5-VL (arXiv 2502.13923, table 1)."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool
    vision_hidden: int
    vision_intermediate: int
    vision_layers: int
    patch_values: int
    """Values of a patch: its pixels, colours and frames."""
    merged_patches: int
    """Patches of a visual token."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """The dimensions in a config.json, of either form. Raises KeyError if they are missing."""
        text, vision = config.get("text_config") or config, config["vision_config"]
        frame = vision["patch_size"] ** 2 * vision.get("in_channels", vision.get("in_chans", 3))
        return cls(
            hidden=text["hidden_size"],
            intermediate=text["intermediate_size"],
            layers=text["num_hidden_layers"],
            heads=text["num_attention_heads"],
            kv_heads=text["num_key_value_heads"],
            vocabulary=text["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
            vision_hidden=vision["hidden_size"],
            vision_intermediate=vision["intermediate_size"],
            vision_layers=vision["depth"],
            patch_values=frame * vision["temporal_patch_size"],
            merged_patches=vision["spatial_merge_size"] ** 2,
        )

    @property
    def keys(self) -> int:
        """Width of the keys of all heads, and of the values."""
        return self.kv_heads * self.hidden // self.heads

    @property
    def embeddings(self) -> int:
        """Parameters of the embeddings, and of the head if it is not the same."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def layer(self) -> int:
        """Parameters of a language layer."""
        attention = 2 * self.hidden * (self.hidden + self.keys) + self.hidden + 2 * self.keys
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def merger(self) -> int:
        """Parameters of the merger, which leads from the vision tower into the language model."""
        wide = self.merged_patches * self.vision_hidden
        return self.vision_hidden + wide * wide + wide + wide * self.hidden + self.hidden

    @property
    def parameters(self) -> int:
        """All parameters; tied ones count once."""
        wide, inner = self.vision_hidden, self.vision_intermediate
        block = 4 * wide * wide + 4 * wide + 3 * wide * inner + 2 * inner + wide + 2 * wide
        vision = wide * self.patch_values + self.vision_layers * block + self.merger
        return self.embeddings + self.layers * self.layer + self.hidden + vision

    def adapter(self, rank: int) -> int:
        """Parameters of a LoRA adapter of the language layers."""
        attention = 2 * (self.hidden + self.hidden) + 2 * (self.hidden + self.keys)
        return rank * self.layers * (attention + 3 * (self.hidden + self.intermediate))

    def token_bytes(self, itemsize: int) -> int:
        """Bytes of a token's keys and values."""
        return 2 * self.layers * self.keys * itemsize


@dataclass(frozen=True, slots=True)
class Serving:
    """Bytes that an engine takes on each of its GPUs, and the room that they leave for keys and values."""

    weights: int
    adapters: int
    """Slots for `max_loras` adapters of `max_lora_rank`."""
    working: int
    """Intermediate values of the largest pass: of a language layer with the logits, or of the vision tower."""
    graphs: int
    token: int
    """Keys and values of one token."""

    @property
    def fixed(self) -> int:
        """All but keys and values."""
        return self.weights + self.adapters + self.working + self.graphs

    def sequences(self, gpu_bytes: float, settings: Settings) -> int:
        """How many questions as long as `max_model_len` find room at once; with 0 the engine does not start."""
        room = settings.gpu_memory_utilization * gpu_bytes - self.fixed
        return max(0, math.floor(room / (self.token * settings.max_model_len)))

    def needed(self, settings: Settings, sequences: int) -> float:
        """Bytes of a GPU on which so many questions as long as `max_model_len` find room at once."""
        return (self.fixed + sequences * self.token * settings.max_model_len) / settings.gpu_memory_utilization


def serving(shape: Shape, settings: Settings) -> Serving:
    """The memory of an engine with these settings."""
    itemsize, gpus = 4 if settings.dtype == "float32" else 2, settings.tensor_parallel_size
    batched = max(BATCHED_TOKENS, settings.max_model_len)
    language = batched * (3 * shape.intermediate + 4 * shape.hidden) * itemsize
    logits = settings.max_num_seqs * shape.vocabulary * _FLOAT_LOGITS
    patches = batched * shape.merged_patches
    vision = patches * (2 * shape.vision_intermediate + 8 * shape.vision_hidden) * itemsize
    return Serving(
        weights=shape.parameters * itemsize // gpus,
        adapters=settings.max_loras * shape.adapter(settings.max_lora_rank) * itemsize // gpus,
        working=max(language + logits, vision) + batched * shape.hidden * itemsize,
        graphs=0 if settings.enforce_eager else _GRAPH_BYTES,
        token=shape.token_bytes(itemsize) // gpus,
    )
