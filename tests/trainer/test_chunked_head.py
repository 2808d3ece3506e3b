"""The head chunk by chunk against the whole: values, gradients, memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainer.training import chunked_head
from trainer.training.chunked_head import token_logprobs
from trainer.training.device_memory import peak_bytes

CPU = torch.device("cpu")


def problem(states: int, vocabulary: int, width: int = 16, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """States and head with gradients; two tokens a state in any order, some of them the same."""
    torch.manual_seed(states + vocabulary)
    hidden, head = torch.randn(states, width, dtype=dtype), torch.randn(vocabulary, width, dtype=dtype)
    rows = torch.arange(states).repeat(2)[torch.randperm(2 * states)]
    return hidden.requires_grad_(), head.requires_grad_(), rows, torch.randint(vocabulary, rows.shape) // 2


def whole(hidden: Tensor, head: Tensor, rows: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """All logits at once, in float64."""
    every = (hidden.double() @ head.double().T).log_softmax(-1)
    return every[rows, tokens], -(every.exp() * every).sum(-1)


def gradients(chosen: Tensor, *of: Tensor) -> list[Tensor]:
    """Of a sum in which no token counts like another."""
    return list(torch.autograd.grad((chosen * torch.linspace(-1, 2, len(chosen))).sum(), of))


@pytest.mark.parametrize("rows_a_chunk", [1, 3, 10, 1000])
def test_values_and_gradients_are_those_of_all_logits_at_once(
    rows_a_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(chunked_head.CHUNK_BYTES, "cpu", rows_a_chunk * 4 * 50)
    hidden, head, rows, tokens = problem(10, 50)
    chosen, entropy = token_logprobs(hidden, head, rows, tokens)
    expected, spread = whole(hidden, head, rows, tokens)
    torch.testing.assert_close(chosen.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy.double(), spread, atol=1e-5, rtol=1e-5)
    assert not entropy.requires_grad
    for one, other in zip(gradients(chosen, hidden, head), gradients(expected, hidden, head), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_frozen_head_gets_no_gradient_and_states_get_theirs() -> None:
    hidden, head, rows, tokens = problem(10, 50)
    [expected] = gradients(token_logprobs(hidden, head, rows, tokens)[0], hidden)
    [found] = gradients(token_logprobs(hidden, head.detach(), rows, tokens)[0], hidden)
    assert torch.equal(found, expected)


def test_in_16_bits_many_chunks_lose_nothing_of_the_heads_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, head, rows, tokens = problem(600, 20, dtype=torch.bfloat16)
    found = []
    for size in (1, 600):
        monkeypatch.setitem(chunked_head.CHUNK_BYTES, "cpu", size * 4 * 20)
        chosen, _ = token_logprobs(hidden, head, rows, tokens)
        found.append(torch.autograd.grad(chosen.sum(), head)[0].double())
    exact = torch.autograd.grad(whole(hidden, head, rows, tokens)[0].sum(), head)[0].double()
    errors = [float((each - exact).norm() / exact.norm()) for each in found]
    assert errors[0] < 2 * errors[1]


def taken(states: int, vocabulary: int) -> int:
    hidden, head, rows, tokens = problem(states, vocabulary)
    return peak_bytes(lambda: gradients(token_logprobs(hidden, head.detach(), rows, tokens)[0], hidden), CPU)


def test_the_memory_grows_neither_with_the_tokens_nor_with_the_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    chunk = 2**20
    monkeypatch.setitem(chunked_head.CHUNK_BYTES, "cpu", chunk)
    for states, vocabulary in ((500, 5_000), (2_000, 5_000), (500, 50_000)):
        kept = 64 * states * 4  # states, their gradients, a few numbers of each token
        assert taken(states, vocabulary) < 2.5 * chunk + kept < 4 * states * vocabulary
