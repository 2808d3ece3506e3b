"""K answers to each of several prompts in one pass that computes every prompt once and no padding.

The batch is one row, `[prompt 1 | ... | prompt N | answers to 1 | ... | answers to N]`, without gaps; the rotary
positions of every answer start where its prompt's end. Token-wise operations (projections, norms, MLPs) see the row as
it is. Only attention is split, into padded blocks: each prompt attends to itself, each answer to its prompt and to
itself (Prefix Grouper, arXiv 2506.05433). The result is exact, gradients included.

Short answers attend in one block for each prompt, masked to their own part. Answers that together are longer than their
prompt would waste most of that block; each has a block of its own, with a copy of the prompt's keys and values.
Measured on 8 layers of width 128, prompt 310: 5 tokens, K = 32: 0.14 s against 0.22 s; 255 tokens, K = 8: 1.7 s against
0.8 s.

`repeated_states` is the plain way that this is checked against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

_NAME = "shared_prefix"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One encoded prompt of P tokens, the prefix of its answers."""

    token_ids: list[int]
    embeddings: Tensor
    """(P, width), visual tokens in place."""
    positions: Tensor
    """(3, P) rotary positions: time, height, width."""

    @property
    def next_position(self) -> Tensor:
        """() The position of an answer's first token: one past the largest of any kind."""
        return self.positions.max() + 1


class Layout(NamedTuple):
    """Where a row's tokens lie in the blocks that attend. M prompt tokens come first."""

    prompts: tuple[int, int]
    """N, and P, the longest prompt's tokens."""
    prompt_places: Tensor
    """(M,) of the prompts' tokens in their (N, P) blocks."""
    answers: tuple[int, int]
    """Rows and columns of the answers' blocks: N and K T, or N K and T if every answer has a block of its own."""
    answer_places: Tensor
    """Of the answers' tokens in their blocks."""
    visible: Tensor
    """The keys that each token of an answer sees: (rows, 1, columns, P + columns) bool."""


def install(language_model: PreTrainedModel) -> None:
    """Makes the language model accept a `layout`; without one it attends as SDPA does."""
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    language_model.set_attn_implementation(_NAME)


def shared_states(
    language_model: PreTrainedModel, prompts: Sequence[Prompt], tokens: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """The hidden states that predict the answers' tokens.

    Args:
        language_model: one that `install` was called on.
        prompts: N of them, of any lengths.
        tokens: (N, K, T) answers, padded on their right.
        mask: (N, K, T) bool, the answers' own tokens.

    Returns:
        (M, width) states, each once, and (N, K, T) which of them predicts which token (0 at padding).
    """
    fed, followed = tokens[..., :-1], mask[..., 1:]  # nothing follows the last token
    lengths = torch.tensor([len(prompt.token_ids) for prompt in prompts], device=tokens.device)
    output = language_model(
        inputs_embeds=_embeddings(language_model, prompts, fed[followed]),
        position_ids=_positions(prompts, followed),
        attention_mask={"full_attention": None},  # `_attend` masks by the layout
        use_cache=False,
        layout=_layout(lengths, followed),
    ).last_hidden_state[0]
    ends = lengths.cumsum(0)
    rows = torch.zeros_like(tokens)
    rows[..., 0] = torch.arange(len(prompts), device=tokens.device)[:, None]
    rows[..., 1:][followed] = torch.arange(len(output) - int(ends[-1]), device=tokens.device) + len(prompts)
    return torch.cat([output[ends - 1], output[int(ends[-1]) :]]), rows


def repeated_states(
    language_model: PreTrainedModel, prompts: Sequence[Prompt], tokens: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """The hidden states that predict the answers' tokens; arguments and result as in `shared_states`."""
    embeddings, positions, places = [], [], []
    for prompt, answers in zip(prompts, tokens[..., :-1], strict=True):
        for answer in answers:
            steps = torch.arange(len(answer), device=tokens.device) + prompt.next_position
            embeddings.append(torch.cat([prompt.embeddings, language_model.get_input_embeddings()(answer)]))
            positions.append(torch.cat([prompt.positions, steps.expand(3, -1)], 1).T)
            places.append(torch.arange(tokens.shape[2], device=tokens.device) + len(prompt.token_ids) - 1)
    output = language_model(
        inputs_embeds=pad_sequence(embeddings, batch_first=True),
        position_ids=pad_sequence(positions, batch_first=True).permute(2, 0, 1),
        use_cache=False,
    ).last_hidden_state
    wanted = mask.flatten(0, 1)
    rows = torch.zeros_like(tokens)
    rows[mask] = torch.arange(int(mask.sum()), device=tokens.device)
    row = torch.arange(len(wanted), device=tokens.device)[:, None].expand_as(wanted)
    return output[row[wanted], torch.stack(places)[wanted]], rows


def _layout(lengths: Tensor, followed: Tensor) -> Layout:
    """Of prompts of these (N,) lengths and the (N, K, T) answers' tokens that are fed."""
    longest, (_, answers, width) = int(lengths.max()), followed.shape
    apart = answers * width > longest
    one = torch.ones(width, width, dtype=torch.bool, device=followed.device).tril()
    own = one if apart else torch.block_diag(*[one] * answers)
    there = torch.arange(longest, device=followed.device) < lengths[:, None]
    visible = torch.cat([there[:, None].expand(-1, len(own), -1), own.expand(len(lengths), -1, -1)], -1)[:, None]
    visible = visible.repeat_interleave(answers, 0) if apart else visible
    return Layout(
        (len(lengths), longest),
        there.flatten().nonzero()[:, 0],
        (len(visible), len(own)),
        followed.flatten().nonzero()[:, 0],
        visible,
    )


def _embeddings(language_model: PreTrainedModel, prompts: Sequence[Prompt], fed: Tensor) -> Tensor:
    """(1, row, width)"""
    return torch.cat([*(prompt.embeddings for prompt in prompts), language_model.get_input_embeddings()(fed)])[None]


def _positions(prompts: Sequence[Prompt], followed: Tensor) -> Tensor:
    """(3, 1, row)"""
    begin = torch.stack([prompt.next_position for prompt in prompts])
    suffix = begin[:, None, None] + torch.arange(followed.shape[2], device=followed.device).expand(followed.shape)
    return torch.cat([*(prompt.positions for prompt in prompts), suffix[followed].expand(3, -1)], 1)[:, None]


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    layout: Layout | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """(1, heads, row, width of a head) queries, keys, values -> (1, row, heads, width of a head)."""
    if layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    length = len(layout.prompt_places)
    prompts = [_blocks(each[0, :, :length], layout.prompt_places, layout.prompts) for each in (query, key, value)]
    on_prompts, _ = sdpa_attention_forward(module, *prompts, None, is_causal=True, **options)
    found = on_prompts.flatten(0, 1)[layout.prompt_places]
    if query.shape[2] > length:
        own = [_blocks(each[0, :, length:], layout.answer_places, layout.answers) for each in (query, key, value)]
        copies = layout.answers[0] // layout.prompts[0]
        keys, values = (
            torch.cat([prefix.repeat_interleave(copies, 0), suffix], 2)
            for prefix, suffix in zip(prompts[1:], own[1:], strict=True)
        )
        on_answers, _ = sdpa_attention_forward(module, own[0], keys, values, layout.visible, **options)
        found = torch.cat([found, on_answers.flatten(0, 1)[layout.answer_places]])
    return found[None], None


def _blocks(row: Tensor, places: Tensor, shape: tuple[int, int]) -> Tensor:
    """(heads, tokens, width) -> (rows, heads, columns, width), zero where no token lies."""
    rows, columns = shape
    blocks = row.new_zeros(len(row), rows * columns, row.shape[2]).index_copy(1, places, row)
    return blocks.unflatten(1, (rows, columns)).transpose(0, 1)
