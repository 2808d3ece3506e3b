"""The plain way: one row an answer, its prompt computed with each. What the shared prefix is checked against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from trainer.training.prompt import Prompt


def states(
    language_model: PreTrainedModel, prompts: Sequence[Prompt], tokens: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """The hidden states that predict the answers' tokens; arguments and result as in `shared_prefix.states`."""
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
