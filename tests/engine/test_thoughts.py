"""Expected answers behind thoughts of the real engine: what samples tend to, the same every time, within the limit."""

from __future__ import annotations

import math

import pytest

from evoquality import ServiceError, encode_image
from evoquality.contract import (
    CompareOptions,
    ExactVotesRequest,
    RankOptions,
    RolloutPrompt,
    RolloutRequest,
    ScoreOptions,
    ScoreResponse,
)
from service.judging.plan import derived_seed
from service.prompts import PROFILES
from tests.engine.running import Running

pytestmark = pytest.mark.engine
DRAWN = 512


@pytest.fixture(params=["evoquality", "visualquality-r1"])
def asked(thinker: Running, thinking_versions: dict[str, str], request: pytest.FixtureRequest) -> Running:
    """The service with a version of each profile in turn."""
    thinker.operators.promote(thinking_versions[request.param])
    return thinker


def together(service: Running, image: bytes, **options: object) -> list[ScoreResponse]:
    """As many thoughts or answers as are compared, 64 in a request."""
    return [service.public.score(image, ScoreOptions(seed=1000 * n, **options)) for n in range(DRAWN // 64)]


def test_the_mean_behind_thoughts_is_that_of_sampled_answers_within_four_standard_errors(
    asked: Running, images: list[bytes]
):
    expected = together(asked, images[0], thoughts=64)
    sampled = together(asked, images[0], samples=64)
    readable = [round(64 * (1 - one.unreadable - one.cut_off)) for one in sampled]
    mean = sum(one.score * count for one, count in zip(sampled, readable, strict=True)) / sum(readable)
    of_thoughts = sum(one.score for one in expected) / len(expected)
    error = expected[0].std * math.sqrt(1 / DRAWN + 1 / sum(readable))
    assert abs(of_thoughts - mean) < 4 * error
    unread = sum(one.unreadable for one in expected) / len(expected)
    share = 1 - sum(readable) / DRAWN
    assert abs(unread - share) < 4 * math.sqrt(2 * max(share, 0.01) / DRAWN)
    assert {(one.mode, one.thoughts, one.cut_off) for one in expected} == {("expected", 64, 0.0)}


def test_the_votes_behind_a_thought_are_the_models_own_probabilities(asked: Running, images: list[bytes]):
    """The sampled answer of the same seed has the same thought, and says how likely its own vote was."""
    encoded = {name: encode_image(image) for name, image in zip("ab", images, strict=False)}
    number, seed = 3, derived_seed(7, "a", "b") // 2
    request = ExactVotesRequest(images=encoded, pairs=[("a", "b")], seed=7, first_thought=number)
    [exact] = asked.operators.exact_votes(request).results
    prompt = RolloutPrompt(task="compare", images=["a", "b"], samples=1, seed=seed + number)
    [sampled] = asked.operators.rollouts(RolloutRequest(images=encoded, prompts=[prompt])).results
    [answer] = sampled.completions
    profile = PROFILES[asked.public.info().profile]
    vote = answer.text.rpartition(profile.opening)[2][0]
    place = len(answer.token_ids) - 1 - _tokens_from_the_end(answer.text, profile.closing)
    likely = math.exp(answer.logprobs[place])
    assert (exact.forward.first, exact.forward.second)[int(vote)] == pytest.approx(likely, abs=1e-3)


def _tokens_from_the_end(text: str, closing: str) -> int:
    """Behind the vote stand the closing, which is one token of this model, and the end of the text."""
    assert text.endswith(closing)
    return 2


def test_without_a_seed_the_same_pictures_get_the_same_answers(
    asked: Running, thinking_versions: dict[str, str], images: list[bytes]
):
    def answers() -> list[object]:
        service, serves = asked.public, asked.active
        for version in (*thinking_versions.values(), serves):  # empties every cache
            asked.operators.promote(version)
        scored = service.score(images[0])
        assert service.score_batch([images[1], images[0]]).results[1].result == scored
        compared = service.compare(images[0], images[1])
        return [scored, service.score(images[0], ScoreOptions(samples=4)), compared, service.rank(images[:3])]

    before = answers()
    assert answers() == before
    scored = before[0]
    assert asked.public.score(images[0], ScoreOptions(seed=scored.seed)) == scored
    others = {asked.public.score(images[0], ScoreOptions(seed="random")).score for _ in range(3)}
    assert len(others) == 3


def test_nothing_is_generated_behind_the_opening(asked: Running, images: list[bytes]):
    profile = PROFILES[asked.public.info().profile]
    answer = asked.public.compare(images[0], images[1], CompareOptions(thoughts=8, reasoning=True))
    for order in answer.orders:
        opened = [text for text in order.answers if text.endswith(profile.opening)]
        assert len(opened) >= 3
        assert all(text.count("</think>") == 1 for text in opened)
    assert asked.public.rank(images[:2], RankOptions(thoughts=2)).mode == "expected"


def test_answers_that_the_limit_cuts_off_are_told(asked: Running, images: list[bytes]):
    encoded = {"a": encode_image(images[0]), "b": encode_image(images[1])}
    prompt = RolloutPrompt(task="score", images=["a"], samples=4, seed=0)
    request = RolloutRequest(images=encoded, prompts=[prompt], max_answer_tokens=12)
    [result] = asked.operators.rollouts(request).results
    assert {(one.finish_reason, len(one.token_ids)) for one in result.completions} == {("length", 12)}
    votes = ExactVotesRequest(images=encoded, pairs=[("a", "b")], thoughts=2, max_answer_tokens=12)
    [exact] = asked.operators.exact_votes(votes).results
    assert (exact.forward.cut_off, exact.backward.cut_off) == (1, 1)


def test_an_answer_that_cannot_fit_the_model_is_refused_with_what_to_do(asked: Running, images: list[bytes]):
    encoded = {"a": encode_image(images[0])}
    prompt = RolloutPrompt(task="score", images=["a"], samples=1)
    with pytest.raises(ServiceError, match=r"may take 4,090; .* at most 4,096 \(max_model_len\).*max_answer_tokens"):
        asked.operators.rollouts(RolloutRequest(images=encoded, prompts=[prompt], max_answer_tokens=4090))
