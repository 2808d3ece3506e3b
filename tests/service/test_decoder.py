"""Decoding within a memory budget, in threads that cancelled requests cannot multiply."""

from __future__ import annotations

import asyncio
import gc
import threading
from time import sleep

import pytest

from service.errors import InvalidImage, TooBusy
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


def test_pictures_beyond_the_memory_are_refused_until_others_are_let_go(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.01)

    async def story() -> None:
        decode = decoder(2)
        held = [await decode(IMAGE) for _ in range(2)]
        with pytest.raises(TooBusy, match="memory"):
            await decode(IMAGE)
        held.pop()
        gc.collect()
        held.append(await decode(IMAGE))

    run(story())


def test_a_picture_waits_a_while_for_memory(run):
    async def story() -> None:
        decode = decoder(1)
        held = [await decode(IMAGE)]
        waiting = asyncio.create_task(decode(IMAGE))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        held.clear()
        assert (await waiting).size == (100, 100)

    run(story())


def test_what_is_refused_keeps_no_memory(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.01)

    async def story() -> None:
        decode = decoder(1)
        for _ in range(3):
            with pytest.raises(InvalidImage):
                await decode(IMAGE[:-40])
        assert (await decode(IMAGE)).size == (100, 100)

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
            calls = [asyncio.create_task(decode(IMAGE)) for _ in range(4)]
            await asyncio.sleep(0.02)
            for call in calls:
                call.cancel()
        with pytest.raises(InvalidImage):
            await decode(IMAGE)

    run(story())
    assert most == 2
