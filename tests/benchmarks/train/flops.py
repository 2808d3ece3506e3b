"""How many floating-point operations the matrix products of an update take: 2 for each multiply-add.

Of a Qwen2.5-VL with h = hidden size, i = intermediate size, keys = width of all heads' keys, for one picture of n
patches, P prompt tokens, K answers of T tokens. The shared prefix computes one picture and P + K (T - 1) language
tokens; the repeated prefix K pictures and K (P + T) tokens.

    vision      n (depth (8 h^2 + 6 h i) + patch embedding) + n/4 merger; attention 4 h n^2, or 4 h n w in windows of w
    language    a token and layer: 4 h^2 + 4 h keys + 6 h i; attention 4 h a key seen
    head        2 h vocabulary, for the answers' tokens (the repeated prefix: and one more each)

Backward: twice the forward pass where weights are trained (full), once where only activations carry the gradient
(LoRA: language model and head), none for a frozen tower. The reference is one more forward pass; with LoRA it is fed
the same visual tokens. Adapters, norms, softmax and the optimizer are left out: below 1 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["lora", "full"]
Prefix = Literal["shared", "repeated"]


@dataclass(frozen=True, slots=True)
class Forward:
    """FLOPs of one forward pass."""

    vision: float
    vision_attention: float
    language: float
    language_attention: float
    head: float

    @property
    def all_vision(self) -> float:
        """The tower and its merger."""
        return self.vision + self.vision_attention

    @property
    def all_language(self) -> float:
        """Layers and head."""
        return self.language + self.language_attention + self.head


def forward_flops(config: Any, prefix: Prefix, *, patches: int, prompt: int, samples: int, answer: int) -> Forward:
    """Of one picture and its answers."""
    pictures = 1 if prefix == "shared" else samples
    if prefix == "shared":
        tokens, scored = prompt + samples * (answer - 1), samples * (answer - 1) + 1
        seen = prompt * (prompt + 1) / 2 + samples * sum(prompt + place + 1 for place in range(answer - 1))
    else:
        tokens, scored = samples * (prompt + answer), samples * (answer + 1)
        seen = samples * (prompt + answer) * (prompt + answer + 1) / 2
    return Forward(
        pictures * _vision(config.vision_config, patches),
        pictures * _vision_attention(config.vision_config, patches),
        tokens * _language_token(config.text_config),
        4 * config.text_config.num_hidden_layers * config.text_config.hidden_size * seen,
        2 * scored * config.text_config.hidden_size * config.text_config.vocab_size,
    )


def step_flops(config: Any, kind: Kind, prefix: Prefix, **shape: int) -> float:
    """Of one picture's part of an update: forward, backward, reference."""
    once = forward_flops(config, prefix, **shape)
    if kind == "full":
        return 4 * (once.all_vision + once.all_language)
    tower = 1 if prefix == "shared" else 2
    return tower * once.all_vision + 3 * once.all_language


def _vision(config: Any, patches: int) -> float:
    width, merged = config.hidden_size, config.spatial_merge_size**2
    embedding = 2 * width * config.in_channels * config.temporal_patch_size * config.patch_size**2
    layer = 8 * width**2 + 6 * width * config.intermediate_size
    merger = 2 * merged * width * (merged * width + config.out_hidden_size) / merged
    return patches * (embedding + config.depth * layer + merger)


def _vision_attention(config: Any, patches: int) -> float:
    window = min(patches, (config.window_size // config.patch_size) ** 2)
    whole = len(config.fullatt_block_indexes)
    return 4 * config.hidden_size * patches * (whole * patches + (config.depth - whole) * window)


def _language_token(config: Any) -> float:
    width, head = config.hidden_size, config.hidden_size // config.num_attention_heads
    attention = 2 * width * (2 * width + 2 * config.num_key_value_heads * head)
    return config.num_hidden_layers * (attention + 6 * width * config.intermediate_size)
