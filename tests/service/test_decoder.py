"""Decoding within a memory budget, in threads that cancelled requests cannot multiply."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from time import sleep

import pytest
from PIL import Image

from service.errors import InvalidImage, InvalidRequest, UrlFailed
from service.images import decoder as module
from service.images.decoder import Decoder
from service.images.picture import Limits
from service.images.remote import Remote
from tests.service.conftest import picture

PIXELS = 100 * 100 * 4
IMAGE = picture(side=100)


def decoder(pictures: int, threads: int = 2) -> Decoder:
    """One with memory for so many pictures."""
    return Decoder(Limits(max_pixels=1_000_000, min_side=28), threads, pictures * PIXELS, Remote((), 1, 1))


async def decoded(decode: Decoder, images: Sequence[bytes], until: asyncio.Event | None = None) -> list[Image.Image]:
    """A request that decodes its pictures and keeps them until it is told."""
    async with decode.opened(images) as pictures:
        found = [await picture.pixels() for picture in pictures]
        if until:
            await until.wait()
        return found


def test_who_needs_more_memory_than_there_is_waits_and_is_not_overtaken(run):
    async def story() -> list[str]:
        decode, over, order = decoder(3), asyncio.Event(), []

        async def ask(name: str, count: int, until: asyncio.Event | None = None) -> None:
            await decoded(decode, [IMAGE] * count, until)
            order.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(ask("first", 2, over))
            await asyncio.sleep(0.05)
            group.create_task(ask("large", 3))
            await asyncio.sleep(0.05)
            group.create_task(ask("small", 1))
            await asyncio.sleep(0.05)
            assert order == []
            over.set()
        return order

    assert run(story()) == ["first", "large", "small"]


def test_a_request_that_never_fits_is_told_at_once_and_blocks_nobody(run):
    async def story() -> None:
        decode, over = decoder(2), asyncio.Event()
        holding = asyncio.create_task(decoded(decode, [IMAGE], over))
        with pytest.raises(InvalidRequest, match="Send fewer of them"):
            await decoded(decode, [IMAGE] * 3)
        assert len(await decoded(decode, [IMAGE])) == 1
        over.set()
        await holding

    run(story())


def test_memory_comes_back_from_those_who_fail_or_are_given_up(run):
    async def story() -> None:
        decode = decoder(1)
        for _ in range(3):
            with pytest.raises(InvalidImage):
                await decoded(decode, [IMAGE[:-40]])
        holding = asyncio.create_task(decoded(decode, [IMAGE], asyncio.Event()))
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(decoded(decode, [IMAGE]))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        for call in (waiting, holding):
            call.cancel()
        assert len(await decoded(decode, [IMAGE])) == 1

    run(story())


def test_given_up_requests_make_no_more_threads(run, monkeypatch: pytest.MonkeyPatch):
    """A thread cannot be killed: the next picture waits until it is done."""
    at_work, most = 0, 0
    lock = threading.Lock()

    def slow(*_: object) -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        sleep(0.05)
        with lock:
            at_work -= 1
        raise InvalidImage("slow")

    monkeypatch.setattr(module, "decode", slow)

    async def story() -> None:
        decode = decoder(9, threads=2)
        for _ in range(3):
            calls = [asyncio.create_task(decoded(decode, [IMAGE])) for _ in range(4)]
            await asyncio.sleep(0.02)
            for call in calls:
                call.cancel()
        with pytest.raises(InvalidImage):
            await decoded(decode, [IMAGE])

    run(story())
    assert most == 2


def test_one_request_does_not_take_all_places_for_fetching(run, monkeypatch: pytest.MonkeyPatch):
    async def story() -> None:
        decode = decoder(9)
        held = asyncio.Event()

        async def fetch(url: str) -> bytes:
            if "slow" in url:
                await held.wait()
                raise UrlFailed("slow")
            return IMAGE

        monkeypatch.setattr(decode._remote, "fetch", fetch)
        batch = asyncio.create_task(decode.try_open([f"https://slow/{number}" for number in range(64)]))
        await asyncio.sleep(0.01)
        assert len(await asyncio.wait_for(decoded(decode, ["https://quick/"]), 5)) == 1
        held.set()
        assert all(isinstance(failure, UrlFailed) for failure in await batch)

    run(story())
