"""A hanging engine: told at once, given time to come back, then the process must end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.service.conftest import World, picture


@pytest.fixture
def silent(make_world: Callable[..., World]) -> World:
    return make_world(hang_seconds=0.2, hang_exit_seconds=0.4)


def watched(world: World, run, story: Callable[[asyncio.Task[None]], Awaitable[object]]) -> object:
    """Tells a story beside the watchdog, whose engine has just fallen silent."""

    async def both() -> object:
        world.engine.silent, world.engine.held = asyncio.Event(), asyncio.Event()
        watch = asyncio.create_task(world.service.watchdog.watch())
        try:
            return await story(watch)
        finally:
            watch.cancel()

    return run(both())


def test_waiting_and_new_requests_are_refused_as_soon_as_the_hang_is_known(silent: World, run):
    async def story(watch: asyncio.Task[None]) -> list[tuple[int, str, bool]]:
        async with silent.public() as client:
            waiting = await client.post("/v1/score", files={"image": picture()})
            answers = [waiting, await client.post("/v1/score", files={"image": picture()})]
            answers.append(await client.get("/health/ready"))
            assert (await client.get("/health/live")).status_code == 200
            await watch
            answers.append(await client.get("/health/live"))
        return [(one.status_code, one.json()["code"], "retry-after" in one.headers) for one in answers]

    assert watched(silent, run, story) == [(503, "engine_hangs", True)] * 4
    assert silent.service.watchdog.must_end


def test_an_engine_that_comes_back_serves_on_and_both_are_said_once(silent: World, run, caplog):
    async def story(watch: asyncio.Task[None]) -> int:
        async with silent.public() as client:
            assert (await client.post("/v1/score", files={"image": picture()})).status_code == 503
            silent.engine.silent.set()
            silent.engine.held.set()
            while (await client.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.01)
            assert not watch.done()
            return (await client.post("/v1/score", files={"image": picture()})).status_code

    assert watched(silent, run, story) == 200
    assert caplog.text.count("the engine hangs") == caplog.text.count("the engine answers again") == 1


def test_a_silent_engine_that_computes_gets_ten_times_as_long(silent: World, run):
    async def told_after() -> float:
        loop = asyncio.get_running_loop()
        silent.engine.silent = asyncio.Event()
        begin, watch = loop.time(), asyncio.create_task(silent.service.watchdog.watch())
        await silent.service.watchdog.hang()
        watch.cancel()
        silent.engine.silent.set()
        return loop.time() - begin

    silent.engine.computes = True
    assert run(told_after()) >= 1.9


def test_what_lasts_in_the_engine_is_no_hang_while_it_answers_between_steps(silent: World, run):
    async def story(watch: asyncio.Task[None]) -> int:
        silent.engine.silent.set()
        async with silent.public() as client:
            asked = asyncio.create_task(client.post("/v1/score", files={"image": picture()}))
            await asyncio.wait([asked, watch], timeout=1.0)
            assert not asked.done() and not watch.done()
            silent.engine.held.set()
            return (await asked).status_code

    assert watched(silent, run, story) == 200
