"""Expected scores of the real engine: they agree with its samples, and they stay the same."""

from __future__ import annotations

import math
import statistics
from concurrent.futures import ThreadPoolExecutor

import pytest

from evoquality.contract import CompareOptions, ScoreOptions
from tests.engine.running import Running

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("number", [0, 5])
def test_the_expected_score_is_the_mean_of_4096_samples_within_four_standard_errors(
    service: Running, images: list[bytes], number: int
):
    expected = service.public.score(images[number])
    assert expected.mode == "expected" and expected.score is not None and expected.std is not None
    options = [ScoreOptions(mode="sampled", samples=64, seed=1000 * batch) for batch in range(64)]
    with ThreadPoolExecutor(8) as pool:
        sampled = list(pool.map(lambda option: service.public.score(images[number], option), options))
    readable = [round(answer.samples * (1 - answer.unreadable)) for answer in sampled]
    mean = sum(answer.score * count for answer, count in zip(sampled, readable, strict=True)) / sum(readable)
    assert abs(mean - expected.score) < 4 * expected.std / math.sqrt(sum(readable))
    unreadable = 1 - sum(readable) / 4096
    assert abs(unreadable - expected.unreadable) < 4 * math.sqrt(max(unreadable, 1e-3) / 4096) + 0.005
    within = [answer.std for answer in sampled]
    assert statistics.fmean(within) == pytest.approx(expected.std, rel=0.1)


def test_the_expected_preference_is_the_share_of_votes_within_four_standard_errors(
    service: Running, images: list[bytes]
):
    first, second = images[0], images[4]
    expected = service.public.compare(first, second)
    options = [CompareOptions(mode="sampled", samples=64, seed=1000 * batch) for batch in range(32)]
    with ThreadPoolExecutor(8) as pool:
        sampled = list(pool.map(lambda option: service.public.compare(first, second, option), options))
    wins, losses = (sum(getattr(answer.votes, side) for answer in sampled) for side in ("first", "second"))
    p = expected.probability_first
    assert abs(wins / (wins + losses) - p) < 4 * math.sqrt(p * (1 - p) / (wins + losses))
    assert expected.votes is None and expected.position_bias is not None


def test_the_distribution_has_the_mean_and_the_entropy_that_are_told(service: Running, images: list[bytes]):
    answer = service.public.score(images[1], ScoreOptions(distribution=True))
    bars = answer.distribution
    assert sum(bar.probability for bar in bars) == pytest.approx(1)
    assert sum((bar.score + 0.045) * bar.probability for bar in bars) == pytest.approx(answer.score, abs=0.05)
    assert answer.entropy == pytest.approx(-sum(b.probability * math.log(b.probability) for b in bars if b.probability))
