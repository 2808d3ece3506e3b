"""The memory that training needs on a GPU, computed from a checkpoint's dimensions, without running it.

A round measures its own passes before the votes (`training/fit.py`); this tells what to expect before there is a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.engine.memory import Shape
from service.prompts import MAX_ANSWER_TOKENS
from trainer.settings.evolve import EvolveSettings
from trainer.training.chunked_head import CHUNK_BYTES

_KEPT_HIDDEN, _KEPT_KEYS, _KEPT_INNER = 44, 8, 10
"""Bytes that a language layer keeps of a token for the backward pass, for each of its `hidden`, `keys` and
`intermediate` values: in 16 bits, and once more in float32 where an adapter reads them. Found by measuring small
models; `tests/benchmarks/scale/recipes.py` measures others, with layers as wide as 7B's too."""
_PASSING_HIDDEN, _PASSING_INNER = 13, 8
"""The same, of values that a layer's backward pass needs for a moment."""
_TOKEN_PIXELS, _TEXT_TOKENS = 28 * 28, 200
"""Pixels of a visual token, and tokens of a question's text, at most."""
_CHUNKS = 3
"""Chunks of the head's logits at once: float32, their probabilities, and 16 bits."""


@dataclass(frozen=True, slots=True)
class Training:
    """Bytes that training takes; FSDP2 spreads `states` over its processes, the rest is on each."""

    states: int
    """Weights, gradients, AdamW's moments, the frozen reference."""
    gathered: int
    """Gathered by FSDP while it computes: embeddings and head, two layers, the gradients of the larger."""
    checkpoint: int
    """`checkpoint.pt`: trained weights and both moments in float32."""
    loading: int
    """Host memory per process at the start."""

    def on_each(self, processes: int, pass_bytes: int) -> float:
        """Bytes on each GPU."""
        return self.states / processes + (self.gathered if processes > 1 else 0) + pass_bytes


def training(shape: Shape, *, full: bool, rank: int) -> Training:
    """`full`: all weights but the vision tower, in float32, beside a bfloat16 reference. Otherwise bfloat16 weights
    with a float32 adapter."""
    every = shape.parameters
    if not full:
        trained = shape.adapter(rank)
        return Training(2 * every + 16 * trained, 2 * (shape.embeddings + 2 * shape.layer), 12 * trained, 2 * every)
    trained = shape.embeddings + shape.layers * shape.layer + shape.hidden + shape.merger
    gathered = 2 * (shape.embeddings + 2 * shape.layer) + 4 * max(shape.embeddings, shape.layer)
    return Training(4 * every + 12 * trained + 2 * every, gathered, 12 * trained, 4 * every)


def pass_bytes(shape: Shape, tokens: int, *, recompute: bool, device: str = "cuda") -> int:
    """The most bytes that a pass of so many tokens holds, in bfloat16; `recompute`: with gradient checkpointing."""
    kept = _KEPT_HIDDEN * shape.hidden + _KEPT_KEYS * shape.keys + _KEPT_INNER * shape.intermediate
    layers = 2 * shape.hidden * shape.layers + kept if recompute else kept * shape.layers
    passing = _PASSING_HIDDEN * shape.hidden + _PASSING_INNER * shape.intermediate
    logits = _CHUNKS * min(CHUNK_BYTES[device], 4 * shape.vocabulary * tokens)
    return tokens * (layers + passing) + logits


def least_bytes(shape: Shape, settings: EvolveSettings, processes: int) -> float:
    """Bytes that training takes on each GPU at the least: with one picture and one of its longest answers in a pass."""
    tokens = settings.pixels // _TOKEN_PIXELS + _TEXT_TOKENS + (settings.max_answer_tokens or MAX_ANSWER_TOKENS)
    recompute = settings.gradient_checkpointing != "off"  # auto takes it where nothing else fits
    need = training(shape, full=settings.policy == "full", rank=settings.rank)
    return need.on_each(processes, pass_bytes(shape, tokens, recompute=recompute))
