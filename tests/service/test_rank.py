"""`POST /v1/rank` around an engine that prefers the brighter picture."""

from __future__ import annotations

import asyncio
import base64

import httpx
import pytest

from evoquality.contract import RankResponse
from service.ranking import strengths
from service.ranking.strengths import Kind, Preference, Strengths
from tests.service.conftest import LARGE_SIDE, World, decodes, picture
from tests.service.test_http import assert_problem

LEVELS = (10, 240, 90, 160, 30, 200)
FILES = [picture(level) for level in LEVELS]
BRIGHTEST_FIRST = sorted(range(len(LEVELS)), key=lambda index: -LEVELS[index])


def form(files: list[bytes]) -> list[tuple[str, bytes]]:
    return [("images", data) for data in files]


def ask(world: World, run, *requests: dict[str, object]) -> list[RankResponse]:
    """The answers to some requests, one after the other."""

    async def story() -> list[RankResponse]:
        async with world.public() as client:
            answers = [await client.post("/v1/rank", **request) for request in requests]
            return [RankResponse.model_validate_json(answer.content) for answer in answers]

    return run(story())


def ranking(world: World, run, files: list[bytes] = FILES, **fields: str) -> RankResponse:
    return ask(world, run, {"files": form(files), "data": fields})[0]


@pytest.mark.parametrize("mode", ["expected", "sampled"])
def test_images_are_ordered_from_the_best_to_the_worst(world: World, run, mode: str):
    found = ranking(world, run, mode=mode, comparisons="15")
    assert [place.index for place in found.ranking] == BRIGHTEST_FIRST
    assert [place.rank for place in found.ranking] == [1, 2, 3, 4, 5, 6]
    strengths = [place.strength for place in found.ranking]
    assert strengths == sorted(strengths, reverse=True)
    assert sum(strengths) == pytest.approx(0, abs=1e-9)
    assert all(place.standard_error > 0 for place in found.ranking)
    assert (found.mode, found.comparisons, found.pairs, found.version) == (mode, 15, 15, world.first)
    assert (found.unreadable, found.position_bias) == (pytest.approx(0, abs=0.01), pytest.approx(0, abs=1e-9))


def test_fewer_comparisons_than_pairs_are_made_and_each_in_both_orders(world: World, run):
    found = ranking(world, run, [picture(level) for level in range(0, 256, 16)])
    assert (found.comparisons, found.pairs) == (64, 120)
    assert len(world.engine.asked) == 2 * 64


def test_a_form_and_json_get_the_same(world: World, run):
    images = [base64.b64encode(data).decode() for data in FILES]
    as_form, as_json = ask(world, run, {"files": form(FILES)}, {"json": {"images": images}})
    assert as_form == as_json


def test_sent_in_another_order_the_same_images_have_the_same_strengths(make_world, run):
    world = make_world(cache_entries=0)
    seed = {"seed": "3"}
    straight, crossed = ask(
        world, run, {"files": form(FILES), "data": seed}, {"files": form(FILES[::-1]), "data": seed}
    )
    last = len(FILES) - 1
    assert {place.index: place.strength for place in straight.ranking} == {
        last - place.index: place.strength for place in crossed.ranking
    }


def test_no_comparisons_are_fitted_twice(world: World, run, monkeypatch: pytest.MonkeyPatch):
    fitted: list[int] = []

    def fit(images: int, preferences: list[Preference], kind: Kind) -> Strengths:
        fitted.append(len(preferences))
        return strengths.fit(images, preferences, kind)

    monkeypatch.setattr("service.ranking.rank.fit", fit)
    found = ranking(world, run)
    assert sorted(set(fitted)) == fitted
    assert fitted[-1] == 2 * found.comparisons


def test_two_images(world: World, run):
    found = ranking(world, run, FILES[:2])
    assert [place.index for place in found.ranking] == [1, 0]
    assert [place.standard_error for place in found.ranking] == [None, None]
    assert found.comparisons == found.pairs == 1


def test_the_same_image_twice_shares_its_rank(world: World, run):
    world.engine.answer = lambda *_: "0"
    found = ranking(world, run, [FILES[0], FILES[0], FILES[1]])
    assert [place.rank for place in found.ranking] == [1, 1, 1]
    assert found.position_bias == pytest.approx(0.5, abs=0.02)


def test_unreadable_comparisons_are_left_out_and_an_image_with_no_other_is_not_ranked(world: World, run):
    plain = world.engine.answer

    def answer(prompt, sampling, index) -> str:
        levels = [image.getpixel((0, 0))[0] for image in prompt.images]
        return "?" if LEVELS[0] in levels else plain(prompt, sampling, index)

    world.engine.answer = answer
    found = ranking(world, run, mode="sampled", comparisons="15")
    assert [place.index for place in found.ranking] == [*(i for i in BRIGHTEST_FIRST if i), 0]
    assert found.ranking[-1].model_dump(include={"rank", "strength", "standard_error"}) == dict.fromkeys(
        ("rank", "strength", "standard_error")
    )
    assert found.unreadable == pytest.approx(5 / 15)


def test_no_order_is_invented_when_nothing_is_readable(world: World, run):
    world.engine.answer = lambda *_: "?"
    found = ranking(world, run, mode="sampled")
    assert {place.rank for place in found.ranking} == {None}
    assert {place.strength for place in found.ranking} == {None}
    assert (found.unreadable, found.position_bias) == (1, None)


def test_every_pair_has_seeds_of_its_own(world: World, run):
    ranking(world, run, seed="7", samples="2")
    seeds = [sampling.seed for _, sampling, *_ in world.engine.asked]
    assert None not in seeds
    assert len(set(seeds)) == len(seeds)


def test_known_pairs_are_not_asked_again_and_images_are_decoded_once(world: World, run):
    decoded, large = decodes(world), [picture(level, side=LARGE_SIDE) for level in LEVELS[:3]]
    first, second = ask(world, run, {"files": form(large)}, {"files": form(large)})
    assert first == second
    assert len(decoded) == 2 * len(large)
    assert len(world.engine.asked) == 2 * first.comparisons


def test_a_promotion_waits_for_the_whole_ranking(world: World, run):
    async def story() -> RankResponse:
        world.engine.seconds = 0.01
        async with world.public() as client:
            asked = asyncio.create_task(client.post("/v1/rank", files=form(FILES)))
            while not world.engine.running:
                await asyncio.sleep(0.001)
            await world.service.swapper.promote(world.second)
            return RankResponse.model_validate_json((await asked).content)

    assert run(story()).version == world.first


BAD = {
    "one image": ({"files": [("images", FILES[0])]}, "invalid_request"),
    "a broken image": ({"files": [("images", FILES[0]), ("images", b"no image")]}, "invalid_image"),
    "an odd number of votes": (
        {"files": form(FILES[:2]), "data": {"samples": "3"}}, "invalid_request",
    ),
    "comparisons that leave images alone": (
        {"files": form(FILES), "data": {"comparisons": "4"}}, "invalid_request",
    ),
    "a seed in expected mode": (
        {"files": form(FILES), "data": {"mode": "expected", "seed": "4"}}, "invalid_request",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "code"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_ranked_is_refused(world: World, run, request_, code: str):
    async def story() -> httpx.Response:
        async with world.public() as client:
            return await client.post("/v1/rank", **request_)

    assert_problem(run(story()), 422, code)
    assert world.engine.asked == []


def test_more_pixels_than_the_service_has_memory_for_are_refused_at_once(make_world, run):
    world = make_world(decoded_mib=14)
    large = [picture(level, side=LARGE_SIDE) for level in (1, 2, 3)]  # 4.6 MiB decoded, each

    async def story() -> None:
        async with world.public() as client:
            refused = await client.post("/v1/rank", files=form(large))
            assert_problem(refused, 422, "invalid_request")
            assert "10 MiB" in refused.json()["detail"]
            assert (await client.post("/v1/score", files={"image": large[0]})).status_code == 200
            batch = await client.post("/v1/score/batch", files=form(large))
            assert [item["problem"] for item in batch.json()["results"]] == [None] * 3

    run(story())
