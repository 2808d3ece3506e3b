"""Rankings, batches and the cache over the real engine."""

from __future__ import annotations

import io
import json

import httpx
import pytest
from PIL import Image, ImageFilter
from scipy.stats import kendalltau

from evoquality.contract import RankOptions, ScoreBatchItem, ScoreOptions
from tests.engine.running import Running
from trainer.demo.contents import content

pytestmark = pytest.mark.engine

GRADES = 12
CHANCE = 0.45
"""The 98th percentile of Kendall's tau between 12 grades and a random order of them."""


@pytest.fixture(scope="module")
def graded() -> list[bytes]:
    """One picture, blurred more and more."""
    picture = content("benchmark", 0)
    return [png(picture.filter(ImageFilter.GaussianBlur(0.5 * grade))) for grade in range(GRADES)]


def png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def cached(service: Running) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in httpx.get(f"{service.operator_url}/metrics").text.splitlines())
    return {name: float(value) for name, _, value in lines if name.startswith("iqa_cache") and "created" not in name}


def test_a_ranking_follows_the_grade_of_blur(
    service: Running, first: str, graded: list[bytes], environment: dict[str, str]
):
    if environment:
        pytest.skip("random weights have no preference")
    answer = service.public.rank(graded)
    order = [place.index for place in answer.ranking]
    assert answer.version == first
    assert answer.comparisons < answer.pairs == GRADES * (GRADES - 1) // 2
    assert kendalltau(range(GRADES), order)[0] > CHANCE
    assert all(place.standard_error > 0 for place in answer.ranking)


def empty_the_cache(service: Running, first: str, second: str) -> None:
    for version in (second, first):
        service.operators.promote(version)


def test_a_ranking_of_votes_is_repeatable_with_a_seed(service: Running, first: str, second: str, graded: list[bytes]):
    options = RankOptions(mode="sampled", samples=2, seed=5, comparisons=6)
    before = service.public.rank(graded[:4], options)
    empty_the_cache(service, first, second)
    assert service.public.rank(graded[:4], options) == before


def test_a_batch_equals_single_answers(service: Running, first: str, second: str, graded: list[bytes]):
    options = ScoreOptions(samples=4, seed=9)
    batch = service.public.score_batch([*graded, b"no image"], options)
    *results, broken = batch.results
    empty_the_cache(service, first, second)
    assert [item.result for item in results] == [service.public.score(data, options) for data in graded]
    assert broken.problem.code == "invalid_image"


def test_a_stream_has_a_line_for_every_image(service: Running, first: str, graded: list[bytes]):
    form = [("images", data) for data in graded]
    headers = {"Accept": "application/x-ndjson"}
    with httpx.stream("POST", f"{service.url}/v1/score/batch", files=form, headers=headers, timeout=60) as response:
        items = [ScoreBatchItem(**json.loads(line)) for line in response.iter_lines()]
    assert sorted(item.index for item in items) == list(range(GRADES))
    assert {item.result.version for item in items} == {first}


def test_the_cache_shows_in_the_metrics_and_a_promotion_empties_it(service: Running, second: str, graded: list[bytes]):
    options = ScoreOptions(samples=2, seed=11)
    service.operators.promote(second)
    before = cached(service)
    assert before["iqa_cache_entries"] == 0
    assert service.public.score(graded[0], options) == service.public.score(graded[0], options)
    after = cached(service)
    hits = 'iqa_cache_requests_total{outcome="hit"}'
    assert after["iqa_cache_entries"] == 1
    assert after[hits] == before.get(hits, 0) + 1
    service.operators.rollback()
    assert cached(service)["iqa_cache_entries"] == 0
    assert service.public.score(graded[0], options).version != second
