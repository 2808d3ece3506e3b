"""K answers to each of several prompts in one pass that computes every prompt once.

A row of the batch is `[prompt | answer 1 | ... | answer K]`; the rotary positions of every answer start where the
prompt's end. Token-wise operations (projections, norms, MLPs) see the row as it is. Only attention is split: the prompt
attends to itself, each answer to the prompt and to itself (Prefix Grouper, arXiv 2506.05433). The result is exact,
gradients included.

Short answers attend in one block over the whole row, masked to their own part, without copies. Answers that together
are longer than their prompt would waste most of that block; each has a block of its own, with a copy of the prompt's
keys and values. Measured on 8 layers of width 128, prompt 310: 5 tokens, K = 32: 0.14 s against 0.22 s; 255 tokens,
K = 8: 1.7 s against 0.8 s.

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
    """The layout of a batch's rows."""

    prompt: int
    """P, columns of the longest prompt; shorter ones are padded on their right."""
    answers: int
    """K"""
    apart: bool
    """True if every answer attends in a block of its own."""
    visible: Tensor
    """The columns that each token of an answer sees: (N, 1, K T, P + K T) bool; apart, (N K, 1, T, P + T)."""


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
    fed = tokens[..., :-1]  # nothing follows the last token
    lengths = torch.tensor([len(prompt.token_ids) for prompt in prompts], device=tokens.device)
    layout = _layout(lengths, fed)
    output = language_model(
        inputs_embeds=_embeddings(language_model, prompts, fed),
        position_ids=_positions(prompts, fed),
        attention_mask={"full_attention": None},  # `_attend` masks by the layout
        use_cache=False,
        layout=layout,
    ).last_hidden_state
    last = output[torch.arange(len(prompts), device=tokens.device), lengths - 1]
    followed = mask[..., 1:]
    rest = output[:, layout.prompt :].unflatten(1, fed.shape[1:])[followed]
    rows = torch.zeros_like(tokens)
    rows[..., 0] = torch.arange(len(prompts), device=tokens.device)[:, None]
    rows[..., 1:][followed] = torch.arange(len(rest), device=tokens.device) + len(prompts)
    return torch.cat([last, rest]), rows


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


def _layout(lengths: Tensor, fed: Tensor) -> Layout:
    """Of prompts of these (N,) lengths and the (N, K, T) answers' tokens that are fed."""
    longest, (_, answers, width) = int(lengths.max()), fed.shape
    apart = answers * width > longest
    one = torch.ones(width, width, dtype=torch.bool, device=fed.device).tril()
    own = one if apart else torch.block_diag(*[one] * answers)
    prompt = (torch.arange(longest, device=fed.device) < lengths[:, None])[:, None].expand(-1, len(own), -1)
    visible = torch.cat([prompt, own.expand(len(lengths), -1, -1)], -1)[:, None]
    return Layout(longest, answers, apart, visible.repeat_interleave(answers, 0) if apart else visible)


def _embeddings(language_model: PreTrainedModel, prompts: Sequence[Prompt], fed: Tensor) -> Tensor:
    """(N, P + K T, width)"""
    prefix = pad_sequence([prompt.embeddings for prompt in prompts], batch_first=True)
    return torch.cat([prefix, language_model.get_input_embeddings()(fed).flatten(1, 2)], 1)


def _positions(prompts: Sequence[Prompt], fed: Tensor) -> Tensor:
    """(3, N, P + K T)"""
    prefix = pad_sequence([prompt.positions.T for prompt in prompts], batch_first=True)
    begin = torch.stack([prompt.next_position for prompt in prompts])
    suffix = begin[:, None, None] + torch.arange(fed.shape[2], device=fed.device).expand(fed.shape[1:])
    return torch.cat([prefix, suffix.flatten(1)[..., None].expand(-1, -1, 3)], 1).permute(2, 0, 1)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    layout: Layout | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """(N, heads, P + K T, width of a head) queries, keys, values -> (N, P + K T, heads, width of a head)."""
    if layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    prompts = [each[:, :, : layout.prompt] for each in (query, key, value)]
    on_prompts, _ = sdpa_attention_forward(module, *prompts, None, is_causal=True, **options)
    if query.shape[2] == layout.prompt:
        return on_prompts, None
    blocks = _blocks(query, key, value, layout)
    on_answers, _ = sdpa_attention_forward(module, *blocks, layout.visible, **options)
    return torch.cat([on_prompts, on_answers.reshape(len(query), -1, *on_answers.shape[2:])], 1), None


def _blocks(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """The answers' queries, with the keys and values that they may see."""
    if not layout.apart:
        return query[:, :, layout.prompt :], key, value
    queries, keys, values = (_by_answer(each[:, :, layout.prompt :], layout) for each in (query, key, value))
    return queries.flatten(0, 1), _after(key[:, :, : layout.prompt], keys), _after(value[:, :, : layout.prompt], values)


def _by_answer(each: Tensor, layout: Layout) -> Tensor:
    """(N, heads, K T, width) -> (N, K, heads, T, width)"""
    return each.unflatten(2, (layout.answers, -1)).transpose(1, 2)


def _after(prompt: Tensor, own: Tensor) -> Tensor:
    """(N, heads, P, width) before (N, K, heads, T, width) -> (N K, heads, P + T, width)"""
    return torch.cat([prompt[:, None].expand(-1, own.shape[1], -1, -1, -1), own], -2).flatten(0, 1)
