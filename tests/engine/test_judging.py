"""Scores, votes and rollouts of the real engine, over HTTP."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from evoquality import encode_image
from evoquality.contract import CompareOptions, RolloutPrompt, RolloutRequest, ScoreOptions
from tests.engine.pictures import ask_greedily, logprobs, pictures, tokens
from tests.engine.running import Running

pytestmark = pytest.mark.engine


def test_a_score_counts_every_answer_and_names_its_version(service: Running, first: str, images: list[bytes]):
    answer = service.public.score(images[0], ScoreOptions(samples=8))
    assert answer.version == first
    assert answer.samples == 8
    assert (answer.score is None) == (answer.unreadable == 1)
    assert answer.score is None or 1 <= answer.score <= 5


def test_a_comparison_asks_both_orders(service: Running, first: str, images: list[bytes]):
    answer = service.public.compare(images[0], images[1], CompareOptions(samples=8))
    assert answer.version == first
    assert [order.shown_first for order in answer.orders] == ["first", "second"]
    for order in answer.orders:
        assert order.votes.first + order.votes.second == 4 * (1 - order.unreadable)


def test_a_seed_makes_answers_repeatable(service: Running, first: str, second: str, images: list[bytes]):
    options, votes = ScoreOptions(samples=8, seed=7), CompareOptions(samples=8, seed=7)
    before = service.public.score(images[0], options), service.public.compare(images[0], images[1], votes)
    for version in (second, first):  # empties every cache
        service.operators.promote(version)
    assert (service.public.score(images[0], options), service.public.compare(images[0], images[1], votes)) == before


def test_seeded_answers_are_the_same_alone_and_among_many(service: Running):
    """Also: more prompts at once than fit one batch, which ends an engine that computes seeded prompts in parts."""
    keys = [str(index) for index in range(120)]
    encoded = {key: encode_image(image) for key, image in zip(keys, pictures(120, seed=5), strict=True)}
    prompts = [RolloutPrompt(task="compare", images=[key, keys[0]], samples=8, seed=int(key)) for key in keys]
    together = service.operators.rollouts(RolloutRequest(images=encoded, prompts=prompts)).results
    for number in (0, 60, 119):
        alone = service.operators.rollouts(RolloutRequest(images=encoded, prompts=[prompts[number]])).results[0]
        assert [c.token_ids for c in alone.completions] == [c.token_ids for c in together[number].completions]


def test_greedy_answers_are_all_alike(service: Running, images: list[bytes]):
    one = service.public.score(images[0], ScoreOptions(samples=1, temperature=0))
    many = service.public.score(images[0], ScoreOptions(samples=8, temperature=0))
    assert (many.samples, many.unreadable) == (8, one.unreadable)
    assert many.score == one.score
    assert many.std == (None if one.score is None else 0)
    votes = service.public.compare(images[0], images[1], CompareOptions(samples=8, temperature=0))
    assert votes.votes.first + votes.votes.second == 8 * (1 - votes.unreadable)


def test_json_and_multipart_get_the_same_answer(service: Running, images: list[bytes]):
    body = {"image": encode_image(images[0]), "samples": 4, "seed": 3}
    response = httpx.post(f"{service.url}/v1/score", json=body, timeout=60)
    assert response.json() == service.public.score(images[0], ScoreOptions(samples=4, seed=3)).model_dump()


def test_rollouts_carry_tokens_and_their_log_probabilities(service: Running, images: list[bytes]):
    prompt = RolloutPrompt(task="score", images=["a"], samples=8, seed=1)
    request = RolloutRequest(images={"a": encode_image(images[0])}, prompts=[prompt])
    (result,) = service.operators.rollouts(request).results
    assert len(result.completions) == 8
    for completion in result.completions:
        assert 0 < len(completion.token_ids) == len(completion.logprobs)
        assert all(math.isfinite(value) and value <= 0 for value in completion.logprobs)


def test_users_do_not_wait_for_rollouts(service: Running, images: list[bytes]):
    prompts = [RolloutPrompt(task="score", images=[str(index)], samples=32) for index in range(12)] * 8
    batch = {str(index): encode_image(image) for index, image in enumerate(images)}
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(service.operators.rollouts, RolloutRequest(images=batch, prompts=prompts))
        time.sleep(0.5)
        answers = [service.public.score(image, ScoreOptions(samples=2)) for image in images[:3]]
        assert not running.done()
        assert len(running.result().results) == len(prompts)
    assert len(answers) == 3


def test_greedy_answers_do_not_depend_on_the_batch(service: Running, images: list[bytes]):
    together = ask_greedily(service, images[:6])
    alone = ask_greedily(service, images[:1])
    assert tokens(together)[0] == tokens(alone)[0]
    assert logprobs(together)[0] == pytest.approx(logprobs(alone)[0], abs=1e-4)


def test_the_service_is_ready_through_its_engine(service: Running, first: str):
    assert service.public.ready().version == first
    metrics = httpx.get(f"{service.operator_url}/metrics").text
    assert f'iqa_model_info{{model="evoquality",version="{first}"}} 1.0' in metrics
    assert "vllm:" in metrics
