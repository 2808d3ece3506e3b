"""Log-probabilities of sampled answers under a torch policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from trainer.training import shared_prefix
from trainer.training.chunked_head import token_logprobs
from trainer.training.shared_prefix import Prompt

Answers = Sequence[Sequence[int]]
"""The K answers to one prompt, as token ids."""
States = Callable[[PreTrainedModel, Sequence[Prompt], Tensor, Tensor], tuple[Tensor, Tensor]]


class Logprobs(NamedTuple):
    """Of N prompts and K answers of at most T tokens each. Tensors are (N, K, T), zero where an answer has ended."""

    chosen: Tensor
    """Natural log-probability of each token, float32."""
    entropy: Tensor
    """Of the distribution that each token was drawn from, in nats; without gradient."""
    mask: Tensor
    """1 for the answers' tokens, 0 for padding; float32."""
    prompts: list[list[int]]
    """The prompts' token ids, as the model saw them."""


class AnswerLogprobs:
    """Log-probabilities by the shared prefix, or in another way: `self_check` says which is right for a model."""

    def __init__(self, language_model: PreTrainedModel, head: nn.Module) -> None:
        shared_prefix.install(language_model)
        self._language_model = language_model
        self._head = head
        self.states: States = shared_prefix.shared_states

    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[Answers]) -> Logprobs:
        """See `answer_logprobs`."""
        return answer_logprobs(self.states, self._language_model, self._head, prompts, answers)


def answer_logprobs(
    states: States,
    language_model: PreTrainedModel,
    head: nn.Module,
    prompts: Sequence[Prompt],
    answers: Sequence[Answers],
) -> Logprobs:
    """Log-probabilities of K answers to each prompt, by `shared_states` or `repeated_states`.

    Raises:
        ValueError: the prompts have different numbers of answers, or an answer is empty.
    """
    tokens, mask = padded(answers, prompts[0].embeddings.device)
    hidden, rows = states(language_model, prompts, tokens, mask)
    found, entropy = token_logprobs(hidden, head.weight, rows[mask], tokens[mask])
    chosen = torch.zeros(tokens.shape, device=tokens.device).masked_scatter(mask, found)
    return Logprobs(chosen, entropy[rows] * mask, mask.float(), [prompt.token_ids for prompt in prompts])


def padded(answers: Sequence[Answers], device: torch.device) -> tuple[Tensor, Tensor]:
    """(N, K, T) token ids, zero where an answer has ended, and the (N, K, T) bool mask of their tokens.

    Raises:
        ValueError: the prompts have different numbers of answers, or an answer is empty.
    """
    rows = [torch.tensor(answer, device=device) for group in answers for answer in group]
    if len({len(group) for group in answers}) != 1 or not all(len(row) for row in rows):
        raise ValueError("every prompt needs the same number of answers, none of them empty")
    tokens = pad_sequence(rows, batch_first=True)
    mask = (
        torch.arange(tokens.shape[1], device=device) < torch.tensor([len(row) for row in rows], device=device)[:, None]
    )
    return tokens.unflatten(0, (len(answers), -1)), mask.unflatten(0, (len(answers), -1))
