"""The shared prefix against the model's own forward, one row an answer: log-probabilities and gradients."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.trainer.vision_models import PLAIN, SHAPES, adapted, picture, plain_logprobs
from trainer.training import shared_prefix
from trainer.training.logprobs import AnswerLogprobs, padded
from trainer.training.network import encode_scores
from trainer.training.policy import LoraPolicy

PICTURES = [picture(0, 84, 112), picture(1, 112, 56), picture(2, 112, 112)]
"""Of three sizes, so of three prompt lengths."""
ANSWERS = [
    [[300, 301, 302, 303, 2], [300, 301, 2], [310, 2], [311]],
    [[299, 303, 2], [305], [305], [12, 13, 14, 15, 16, 17, 18]],
    [[7], [8], [9, 2], [10]],
]


@pytest.fixture(scope="module", params=SHAPES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SHAPES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture
def policy(checkpoint: Path) -> LoraPolicy:
    return adapted(checkpoint)


def plain(model: torch.nn.Module, checkpoint: Path) -> list[list[Tensor]]:
    return [
        [plain_logprobs(model, checkpoint, shown, answer) for answer in answers]
        for shown, answers in zip(PICTURES, ANSWERS, strict=True)
    ]


def weighted(rows: list[list[Tensor]]) -> Tensor:
    """A sum in which no token counts like another."""
    flat = torch.cat([row for answers in rows for row in answers])
    return (flat * torch.linspace(-1, 2, len(flat))).sum()


def unpadded(found: Tensor) -> list[list[Tensor]]:
    return [
        [found[row, column, : len(answer)] for column, answer in enumerate(answers)]
        for row, answers in enumerate(ANSWERS)
    ]


def assert_same_gradients(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 1e-3 * other.norm() + 1e-6


def test_log_probabilities_equal_the_plain_forward(policy: LoraPolicy, checkpoint: Path) -> None:
    found = policy.network.logprobs(policy.network.encode(PICTURES), ANSWERS)
    for ours, theirs in zip(unpadded(found.chosen), plain(policy._peft, checkpoint), strict=True):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    for row, answers in enumerate(ANSWERS):
        for column, answer in enumerate(answers):
            assert found.mask[row, column].tolist() == [1] * len(answer) + [0] * (7 - len(answer))
    assert (found.chosen[found.mask == 0] == 0).all()


def test_the_adapters_gradients_equal_the_plain_forwards(policy: LoraPolicy, checkpoint: Path) -> None:
    found = policy.network.logprobs(policy.network.encode(PICTURES), ANSWERS)
    shared = torch.autograd.grad(weighted(unpadded(found.chosen)), policy.trainable())
    expected = torch.autograd.grad(weighted(plain(policy._peft, checkpoint)), policy.trainable())
    assert_same_gradients(list(shared), list(expected))


def test_all_weights_gradients_equal_the_plain_forwards(checkpoint: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, trust_remote_code=False)
    stock = copy.deepcopy(model)
    logprobs = AnswerLogprobs(model.model.language_model, model.lm_head)
    processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=False)
    prompts = encode_scores(model.model, processor, PLAIN, PICTURES, gradient=True)
    found = torch.autograd.grad(weighted(unpadded(logprobs(prompts, ANSWERS).chosen)), list(model.parameters()))
    expected = torch.autograd.grad(weighted(plain(stock, checkpoint)), list(stock.parameters()))
    assert_same_gradients(list(found), list(expected))
    of_the_tower = [grad for (name, _), grad in zip(model.named_parameters(), found, strict=True) if "visual" in name]
    assert all(grad.norm() > 0 for grad in of_the_tower if grad.ndim > 1)


LONG = [[[300 + (place + 7 * row) % 40 for place in range(length)] for row, length in enumerate((90, 60))]]


def test_answers_longer_than_the_prompt(policy: LoraPolicy, checkpoint: Path) -> None:
    prompts = policy.network.encode(PICTURES[:1])
    found = policy.network.logprobs(prompts, LONG).chosen[0]
    expected = [plain_logprobs(policy._peft, checkpoint, PICTURES[0], answer) for answer in LONG[0]]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one[: len(other)], other, atol=1e-4, rtol=0)
    shared, plain = (
        torch.autograd.grad(sum(row.sum() for row in rows), policy.trainable()) for rows in (found, expected)
    )
    assert_same_gradients(list(shared), list(plain))


def test_short_answers_share_a_block_long_ones_have_their_own() -> None:
    lengths = torch.tensor([80, 60])
    fed = torch.ones(2, 8, 11, dtype=torch.bool)
    assert shared_prefix._layout(lengths, fed[..., :10]).answers == (2, 80)
    assert shared_prefix._layout(lengths, fed).answers == (16, 11)


def test_answers_of_one_token(policy: LoraPolicy, checkpoint: Path) -> None:
    found = policy.network.logprobs(policy.network.encode(PICTURES[:1]), [[[300], [301]]])
    expected = plain_logprobs(policy._peft, checkpoint, PICTURES[0], [301])
    torch.testing.assert_close(found.chosen[0, 1], expected, atol=1e-4, rtol=0)


def test_the_entropy_is_that_of_the_distribution_of_each_token(policy: LoraPolicy) -> None:
    prompts = policy.network.encode(PICTURES[:1])
    every = [[token] for token in range(policy.network.model.config.text_config.vocab_size)]
    chosen = policy.network.logprobs(prompts, [every]).chosen[0, :, 0].detach().double()
    entropy = policy.network.logprobs(prompts, ANSWERS[:1]).entropy
    assert entropy[0, 0, 0].item() == pytest.approx(-(chosen.exp() * chosen).sum().item(), rel=1e-5)
    assert (entropy[0, 3, 1:] == 0).all()


def test_repeated_prefix_gives_the_same_states(policy: LoraPolicy) -> None:
    language_model, prompts = policy.network.model.model.language_model, policy.network.encode(PICTURES)
    tokens, mask = padded(ANSWERS, torch.device("cpu"))
    shared, rows = shared_prefix.shared_states(language_model, prompts, tokens, mask)
    repeated, places = shared_prefix.repeated_states(language_model, prompts, tokens, mask)
    torch.testing.assert_close(shared[rows[mask]], repeated[places[mask]], atol=1e-4, rtol=0)


@pytest.mark.parametrize("answers", [[[[1]], [[1], [2]]], [[[]], [[1]]]])
def test_prompts_need_equally_many_answers_none_empty(answers: list[list[list[int]]]) -> None:
    with pytest.raises(ValueError, match="same number of answers"):
        padded(answers, torch.device("cpu"))
