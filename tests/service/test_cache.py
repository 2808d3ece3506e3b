"""Repeatable questions are answered once; nothing of old weights outlives a swap."""

from __future__ import annotations

import asyncio
import base64

import httpx
import pytest

from tests.service.conftest import LARGE_SIDE, World, decodes, picture

IMAGE, OTHER = picture(128), picture(200)
TEXT = base64.b64encode(IMAGE).decode()
LARGE = picture(side=LARGE_SIDE)


def score(world: World, run, data: bytes = IMAGE, **fields: str) -> httpx.Response:
    async def story() -> httpx.Response:
        async with world.public() as client:
            return await client.post("/v1/score", files={"image": data}, data=fields)

    return run(story())


def counted(run, world: World) -> dict[str, float]:
    async def story() -> str:
        async with world.operators(key=None) as client:
            return (await client.get("/metrics")).text

    lines = (line.split() for line in run(story()).splitlines() if line.startswith("iqa_cache"))
    return {name: float(value) for name, value in lines if "created" not in name}


def test_the_same_question_is_asked_once_however_its_image_is_sent(world: World, run):
    async def as_json() -> httpx.Response:
        async with world.public() as client:
            return await client.post("/v1/score", json={"image": TEXT})

    answer = score(world, run)
    asked = len(world.engine.asked)
    assert asked > 0
    assert score(world, run).json() == run(as_json()).json() == answer.json()
    assert len(world.engine.asked) == asked


REPEATABLE = [{}, {"mode": "sampled"}, {"samples": "4"}, {"seed": "3"}, {"temperature": "0"}]


@pytest.mark.parametrize("fields", REPEATABLE, ids=str)
def test_what_is_repeatable_is_kept(world: World, run, fields: dict[str, str]):
    score(world, run, **fields)
    asked = len(world.engine.asked)
    score(world, run, **fields)
    assert len(world.engine.asked) == asked


ANEW = [{"seed": "random"}, {"samples": "4", "seed": "random"}, {"temperature": "0.5", "seed": "random"}]
WITH_TEXTS = [{"reasoning": "true", "seed": "3"}, {"reasoning": "true", "temperature": "0"}]


@pytest.mark.parametrize("fields", ANEW + WITH_TEXTS, ids=str)
def test_what_is_drawn_anew_is_not_and_neither_are_texts_which_may_be_long(world: World, run, fields: dict[str, str]):
    for asked in (1, 2):
        score(world, run, **fields)
        assert len(world.engine.asked) == asked


def test_every_parameter_and_every_picture_is_another_question(world: World, run):
    seeds = [{"seed": "1"}, {"seed": "2"}, {"seed": "1", "samples": "4"}, {"seed": "1", "temperature": "0.5"}]
    for number, fields in enumerate(seeds):
        score(world, run, **fields)
        assert len(world.engine.asked) == number + 1
    score(world, run, OTHER, seed="1")
    assert len(world.engine.asked) == len(seeds) + 1
    assert score(world, run, distribution="true").json()["distribution"]
    assert score(world, run).json()["distribution"] is None


def test_a_parameter_left_out_is_the_same_as_its_default(world: World, run):
    score(world, run, seed="1")
    score(world, run, seed="1", samples="8", temperature="1.0", mode="sampled")
    assert len(world.engine.asked) == 1


def test_preferences_are_kept_in_the_order_of_their_images(world: World, run):
    async def compare(first: bytes, second: bytes) -> str:
        async with world.public() as client:
            answer = await client.post("/v1/compare", files={"first": first, "second": second})
            return answer.json()["preferred"]

    assert [run(compare(IMAGE, OTHER)) for _ in range(2)] == ["second", "second"]
    assert len(world.engine.asked) == 2
    assert run(compare(OTHER, IMAGE)) == "first"


def test_a_swap_empties_the_cache(world: World, run):
    before = counted(run, world)
    assert score(world, run).json()["version"] == world.first
    assert score(world, run).json()["version"] == world.first
    after = counted(run, world)
    for outcome in ("hit", "miss"):
        name = f'iqa_cache_requests_total{{outcome="{outcome}"}}'
        assert after[name] == before.get(name, 0) + 1
    assert after["iqa_cache_entries"] == 1
    run(world.service.swapper.promote(world.second))
    assert counted(run, world)["iqa_cache_entries"] == 0
    assert score(world, run).json()["version"] == world.second
    run(world.service.swapper.rollback())
    assert score(world, run).json()["version"] == world.first


def test_no_answer_of_old_weights_is_served_after_a_swap_under_load(world: World, run):
    async def story() -> None:
        world.engine.seconds = 0.001
        async with world.public() as client:

            async def caller() -> None:
                for _ in range(40):
                    began = world.service.swap_lock.version.id
                    answer = await client.post("/v1/score", files={"image": IMAGE})
                    ended = world.service.swap_lock.version.id
                    assert answer.json()["version"] in {began, ended}

            async def swaps() -> None:
                for version in (world.second, world.first, world.second):
                    await world.service.swapper.promote(version)
                    assert (await client.post("/v1/score", files={"image": IMAGE})).json()["version"] == version

            await asyncio.gather(swaps(), *(caller() for _ in range(8)))

    run(story())


def test_the_longest_unused_answer_makes_room(make_world, run):
    world = make_world(cache_entries=2)
    pictures = [picture(level) for level in (10, 20, 30)]
    for data in (*pictures[:2], pictures[0], pictures[2]):
        score(world, run, data)
    asked = len(world.engine.asked)
    score(world, run, pictures[0])
    score(world, run, pictures[2])
    assert len(world.engine.asked) == asked
    score(world, run, pictures[1])
    assert len(world.engine.asked) > asked


def test_it_can_be_off(make_world, run):
    world = make_world(cache_entries=0)
    score(world, run)
    asked = len(world.engine.asked)
    score(world, run)
    assert len(world.engine.asked) == 2 * asked


def test_failures_are_not_kept(world: World, run):
    world.engine.is_dead = True
    assert score(world, run).status_code == 503
    world.engine.is_dead = False
    assert score(world, run).status_code == 200


def test_a_known_picture_is_not_decoded_again(world: World, run):
    decoded = decodes(world)
    for _ in range(2):
        assert score(world, run, LARGE).status_code == 200
    assert len(decoded) == 1
