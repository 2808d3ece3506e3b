"""Memory of the language head at Qwen2.5-VL-7B's true width and vocabulary: chunked, and all logits at once.

Forward and backward pass over the states of 512 tokens, with the entropy that the trainer logs, bfloat16 weights that
are not trained (an adapter's). The peak is that of all tensors beyond states and weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.benchmarks.sizes import PUBLISHED
from trainer.training.chunked_head import token_logprobs
from trainer.training.device_memory import peak_bytes

TOKENS = 512
Head = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def measure() -> dict[str, Any]:
    """Bytes a token of the chunked head, and how many times as much the plain one takes."""
    text = PUBLISHED["7B"].text_config
    torch.manual_seed(0)
    weights = torch.empty(text.vocab_size, text.hidden_size, dtype=torch.bfloat16).normal_(std=0.02)
    chunked, plain = (peak(head, weights, TOKENS) for head in (token_logprobs, plain_logprobs))
    return {
        "peak_bytes_per_token_152k": chunked / TOKENS,
        "plain_bytes_per_token_152k": plain / TOKENS,
        "plain_over_chunked": plain / chunked,
        "tokens": TOKENS,
        "vocabulary": text.vocab_size,
        "width": text.hidden_size,
    }


def peak(head: Head, weights: Tensor, tokens: int) -> int:
    """Peak bytes of a forward and backward pass over so many random tokens."""
    states = torch.randn(tokens, weights.shape[1], dtype=weights.dtype, requires_grad=True)
    rows, drawn = torch.arange(tokens), torch.randint(len(weights), (tokens,))
    return peak_bytes(lambda: torch.autograd.grad(head(states, weights, rows, drawn)[0].sum(), states), states.device)


def plain_logprobs(states: Tensor, head: Tensor, rows: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """What `token_logprobs` gives, from all logits at once."""
    every = torch.nn.functional.linear(states, head).float().log_softmax(-1)
    with torch.no_grad():
        entropy = -torch.linalg.vecdot(every.exp(), every)
    return every[rows, tokens], entropy
