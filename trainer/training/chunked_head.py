"""Log-probabilities of tokens from hidden states, with a few rows of logits at a time.

The logits of all tokens at once are the largest tensor of a pass: 152,064 columns at Qwen2.5-VL-7B. Here the head, its
normalisation, the choice of the tokens and the entropy are computed chunk by chunk, and computed again in the backward
pass, so that the memory depends neither on the number of tokens nor on the vocabulary (Liger Kernel, arXiv 2410.10989;
Cut Your Losses, arXiv 2411.09009). The values and gradients are those of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

CHUNK_BYTES = {"cpu": 32 * 2**20, "cuda": 128 * 2**20}
"""Float32 logits of one chunk, by the kind of device. With fewer rows a GPU would read the head's weights for longer
than it computes with them."""


def token_logprobs(states: Tensor, head: Tensor, rows: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of tokens, and the entropies of the distributions they were drawn from.

    Args:
        states: (M, width) hidden states after the last norm.
        head: (vocabulary, width) weights of the language head, which has no bias.
        rows: (A,) the state that predicts each token.
        tokens: (A,) their ids.

    Returns:
        (A,) natural log-probabilities, float32, with gradients to states and head; (M,) entropies in nats, without.
    """
    return _TokenLogprobs.apply(states, head, rows, tokens)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, head: Tensor, rows: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        chosen = torch.empty(len(tokens), device=states.device)
        normalisers, entropy = torch.empty(2, len(states), device=states.device)
        for part, here in _chunks(states, head, rows):
            logits = linear(states[part], head).float()
            largest = logits.amax(-1)
            exponents = logits.sub_(largest[:, None]).exp()
            total = exponents.sum(-1)
            normalisers[part] = largest + total.log()
            own = rows[here] - part.start
            chosen[here] = logits[own, tokens[here]] - total.log()[own]
            entropy[part] = total.log() - logits.mul_(exponents).sum(-1) / total
            del logits, exponents  # before the next chunk's
        ctx.save_for_backward(states, head, rows, tokens, normalisers)
        ctx.mark_non_differentiable(entropy)
        return chosen, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_chosen: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """d log p(t) / d logits = onehot(t) - p"""
        states, head, rows, tokens, normalisers = ctx.saved_tensors
        of_rows = torch.zeros_like(normalisers).index_add_(0, rows, of_chosen)
        of_states = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        of_head = torch.zeros_like(head, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        for part, here in _chunks(states, head, rows):
            logits = linear(states[part], head).float()
            of_logits = logits.sub_(normalisers[part, None]).exp_().mul_(-of_rows[part, None])
            of_logits.index_put_((rows[here] - part.start, tokens[here]), of_chosen[here], accumulate=True)
            of_logits = of_logits.to(states.dtype)
            if of_states is not None:
                of_states[part] = of_logits @ head
            if of_head is not None:  # summed in float32: many chunks of 16 bits would lose the small ones
                _add_product(of_head, of_logits.T, states[part])
            del logits, of_logits
        return of_states, None if of_head is None else of_head.to(head.dtype), None, None


def _chunks(states: Tensor, head: Tensor, rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Parts of the states, and the places of the tokens that each predicts."""
    size = max(1, CHUNK_BYTES[states.device.type] // (4 * len(head)))
    starts = range(0, len(states), size)
    order = rows.argsort()
    edges = torch.searchsorted(rows[order], torch.tensor([*starts, len(states)], device=rows.device)).tolist()
    for start, (first, last) in zip(starts, pairwise(edges), strict=True):
        yield slice(start, min(start + size, len(states))), order[first:last]


def _add_product(total: Tensor, one: Tensor, other: Tensor) -> None:
    """Adds a matrix product to a float32 total."""
    if one.dtype == torch.float32:
        total.addmm_(one, other)
    else:
        total.add_(one @ other)
