"""Memory of an engine and of a trainer, in bytes of one GPU, from shapes alone. Nothing here was measured on a GPU.

Left out: what CUDA and the allocator keep for themselves. A GPU counts with the share that vLLM takes of it by default
(`gpu_memory_utilization`), for the trainer too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig

from service.configuration.settings import Settings
from tests.benchmarks.sizes.models import (
    PUBLISHED,
    adapter_parameters,
    parameters,
    token_bytes,
    trained_parameters,
    weightless,
)
from tests.benchmarks.train.ways import ANSWER, PROMPT, VISUAL_TOKENS

Kind = Literal["lora", "full"]

DEFAULTS = Settings()
MAX_MODEL_LEN = 4096
BATCHED_TOKENS = 8192
"""Of one pass of the engine, see `engine_args`."""
MAX_PIXELS = 1_003_520
"""As k8s/base has it: 1,280 visual tokens a picture."""
RANK, SAMPLES, IMAGES_PER_PASS = 32, 32, 4
"""Of the trainer, as the README's commands for 7B have them."""
LONGEST_PROMPT = PROMPT - VISUAL_TOKENS + MAX_PIXELS // 28**2
GIB = 2**30
GPUS = {"24 GB": 22, "48 GB": 44, "80 GB": 79, "141 GB": 139}
"""GiB that torch reports of an L4, an L40S, an H100 (A100) and an H200, rounded down."""
TENSOR_PARALLEL = (1, 2, 4)
"""8 would split neither the 28 heads of 7B nor its vision tower's 3,420 columns."""
PROCESSES = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Serving:
    """Bytes of an engine in the role `serve`, over all of its GPUs but for `working`."""

    weights: int
    token: int
    """Keys and values of a token."""
    adapters: int
    """The slots for adapters: `max_loras` of `max_lora_rank`."""
    working: int
    """On each GPU: a layer's values for the longest pass."""

    def sequences(self, gpu_gib: float, gpus: int) -> int:
        """Answers of full length whose keys and values fit beside the rest; 0: the engine would not start."""
        room = DEFAULTS.gpu_memory_utilization * gpu_gib * GIB - (self.weights + self.adapters) / gpus - self.working
        return max(0, int(room * gpus / (self.token * MAX_MODEL_LEN)))


@cache
def serving(name: str) -> Serving:
    """Of a published model."""
    config, model = PUBLISHED[name], weightless(PUBLISHED[name])
    text = config.text_config
    slots = DEFAULTS.max_loras * adapter_parameters(model, DEFAULTS.max_lora_rank)
    working = BATCHED_TOKENS * (3 * text.intermediate_size + 4 * text.hidden_size)
    return Serving(2 * parameters(model), token_bytes(config), 2 * slots, 2 * working)


@dataclass(frozen=True, slots=True)
class Training:
    """Bytes of a trainer; those of `states` are spread over its processes by FSDP2, each has the others."""

    states: int
    """Weights, gradients, AdamW's moments, the frozen reference."""
    gathered: int
    """What FSDP has whole while it computes: embeddings and head, two layers, the gradients of the larger."""
    activations: int
    """Kept for the backward pass with `--gradient-checkpointing`, and the answers' distributions."""
    checkpoint: int
    """`checkpoint.pt`: the trained weights and both moments in float32."""
    loading: int
    """Of the machine's memory, for each process at the start."""

    def on_each(self, processes: int) -> float:
        """Bytes of each GPU."""
        return self.states / processes + (self.gathered if processes > 1 else 0) + self.activations


@cache
def training(name: str, kind: Kind) -> Training:
    """Of a published model: `lora` in bfloat16 with an adapter in float32, `full` in float32 beside a bfloat16 copy."""
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
    return Training(states, gathered, _activations(name), 12 * trained, (2 if kind == "lora" else 4) * every)


def _activations(name: str) -> int:
    """Every layer's input, one layer's inside while it is computed again, and the head's output: in bfloat16, then in
    float32 as it is, divided by the temperature, as log-probabilities and as their gradient."""
    text = PUBLISHED[name].text_config
    tokens = LONGEST_PROMPT + SAMPLES * (ANSWER - 1)
    scored = IMAGES_PER_PASS * (1 + SAMPLES * (ANSWER - 1))
    inputs = 2 * IMAGES_PER_PASS * tokens * text.hidden_size * text.num_hidden_layers
    layer = IMAGES_PER_PASS * layer_activations(PUBLISHED[name], tokens)
    return inputs + layer + scored * text.vocab_size * (2 + 4 * 4)


def layer_activations(config: Qwen2_5_VLConfig, tokens: int) -> int:
    """What torch keeps of a language layer for its backward pass: its own count of saved tensors, on the meta device.
    Attention's probabilities do not count: kernels for GPUs do not keep them."""
    model = weightless(config).model.language_model
    model.layers = model.layers[:2]
    two = _saved(model, tokens)
    model.layers = model.layers[:1]
    return two - _saved(model, tokens)


def _forward(model: torch.nn.Module, tokens: int) -> object:
    width = model.config.hidden_size
    embedded = torch.empty(1, tokens, width, dtype=torch.bfloat16, device="meta", requires_grad=True)
    positions = torch.zeros(3, 1, tokens, dtype=torch.long, device="meta")
    return model(inputs_embeds=embedded, position_ids=positions, use_cache=False)


def _saved(model: torch.nn.Module, tokens: int) -> int:
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights and tensor.shape[-2:] != (tokens, tokens):
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = _forward(model, tokens)
    del output
    return sum(kept.values())
