"""Votes of the real engine: the exact ones are what many samples tend to, and waves continue one stream."""

from __future__ import annotations

import math

import pytest

from evoquality import encode_image
from evoquality.contract import ExactVotesRequest, RolloutPrompt, RolloutRequest
from service.answers import parse_vote
from service.prompts import PROFILES
from tests.engine.running import Running

pytestmark = pytest.mark.engine
SAMPLES = 2048


def answers(service: Running, images: dict[str, str], shown: list[str], samples: int, seed: int) -> list[str]:
    """Sampled answers to one order of presentation, 64 a prompt at most."""
    prompts = [
        RolloutPrompt(task="compare", images=shown, samples=min(64, samples), seed=seed + start)
        for start in range(0, samples, 64)
    ]
    response = service.operators.rollouts(RolloutRequest(images=images, prompts=prompts))
    return [completion.text for result in response.results for completion in result.completions]


def test_exact_votes_are_the_shares_of_2048_samples_within_four_standard_errors(
    service: Running, first: str, images: list[bytes]
) -> None:
    encoded = {str(number): encode_image(image) for number, image in enumerate(images)}
    pair = ("0", "4")
    asked = ExactVotesRequest(images=encoded, pairs=[pair], version=first)
    [exact] = service.operators.exact_votes(asked).results
    forward, backward = (exact.forward.first, exact.forward.second), (exact.backward.second, exact.backward.first)
    for shown, probabilities in ((pair, forward), (pair[::-1], backward)):
        found = [parse_vote(text, PROFILES["plain"]) for text in answers(service, encoded, list(shown), SAMPLES, 7)]
        for vote, probability in enumerate(probabilities):
            error = math.sqrt(max(probability * (1 - probability), 1e-3) / SAMPLES)
            assert abs(found.count(vote) / SAMPLES - probability) < 4 * error


def test_a_wave_of_votes_goes_on_where_the_one_before_stopped(service: Running, images: list[bytes]) -> None:
    encoded = {str(number): encode_image(images[number]) for number in (2, 3)}
    whole = answers(service, encoded, ["2", "3"], 32, seed=100)
    opening, rest = (
        answers(service, encoded, ["2", "3"], count, seed=100 + start) for start, count in ((0, 4), (4, 28))
    )
    assert len(set(whole)) > 1
    assert [*opening, *rest] == whole
