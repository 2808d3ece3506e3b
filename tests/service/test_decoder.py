"""Pictures of requests: their memory, their turns, and the processes that decode them."""

from __future__ import annotations

import asyncio
import base64
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from PIL import ExifTags, Image

from service.errors import InvalidImage, InvalidRequest, UrlFailed
from service.images.decoder import Decoder
from service.images.kept import KeptFiles
from service.images.picture import Limits
from service.images.remote import Remote
from service.images.shares import Queue, Turns
from service.images.workers import Block, Workers, workers
from tests.service.conftest import KEY, LARGE_SIDE, World, decodes, picture

PIXELS = LARGE_SIDE * LARGE_SIDE * 4
IMAGE = picture(side=LARGE_SIDE)
SHARE = 3
"""Pictures that the larger part of the memory of `decoder` takes."""


@pytest.fixture(scope="module", autouse=True)
def started_beside_the_loop() -> None:
    workers(2, False)


def decoder(seconds: float = 20, processes: Workers | None = None) -> Decoder:
    """One with memory for four pictures: one for small requests, `SHARE` for larger ones."""
    limits = Limits(max_pixels=2_000_000, min_side=28)
    return Decoder(limits, processes or workers(2, False), 4 * PIXELS, seconds, Remote((), 1, 1), KeptFiles(0))


async def decoded(
    decode: Decoder,
    images: Sequence[bytes | str],
    begun: asyncio.Event | None = None,
    until: asyncio.Event | None = None,
) -> list[tuple[int, int]]:
    """A request that decodes its pictures and keeps them until an event. Returns their sizes."""
    async with decode.opened(images) as pictures:
        if begun:
            begun.set()
        found = [(await picture.pixels()).size for picture in pictures]
        if until:
            await until.wait()
        return found


def test_a_request_that_needs_more_memory_waits_and_is_not_overtaken_by_its_like(run):
    async def story() -> list[str]:
        decode, begun, over, order = decoder(), asyncio.Event(), asyncio.Event(), []

        async def ask(name: str, count: int, begun: asyncio.Event | None = None, until: asyncio.Event | None = None):
            await decoded(decode, [IMAGE] * count, begun, until)
            order.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(ask("first", 2, begun, over))
            await begun.wait()
            group.create_task(ask("large", 3))
            await until(lambda: decode._memory._large._turn.locked())
            group.create_task(ask("second", 2))
            await ask("small", 1)
            over.set()
        return order

    assert run(story()) == ["small", "first", "large", "second"]


def test_a_request_that_never_fits_is_refused_at_once_and_blocks_nobody(run):
    async def story() -> None:
        decode, begun, over = decoder(), asyncio.Event(), asyncio.Event()
        holding = asyncio.create_task(decoded(decode, [IMAGE] * SHARE, begun, over))
        await begun.wait()
        with pytest.raises(InvalidRequest, match="Send fewer of them"):
            await decoded(decode, [IMAGE] * (SHARE + 1))
        assert await decoded(decode, [IMAGE]) == [(LARGE_SIDE, LARGE_SIDE)]
        over.set()
        await holding

    run(story())


def test_memory_comes_back_from_requests_that_fail_or_are_given_up(run):
    async def story() -> None:
        decode, begun = decoder(), asyncio.Event()
        for _ in range(SHARE):
            with pytest.raises(InvalidImage):
                await decoded(decode, [IMAGE[:-40]] * SHARE)
        holding = asyncio.create_task(decoded(decode, [IMAGE] * SHARE, begun, asyncio.Event()))
        await begun.wait()
        waiting = asyncio.create_task(decoded(decode, [IMAGE] * SHARE))
        await until(lambda: decode._memory._large._turn.locked())
        for call in (waiting, holding):
            call.cancel()
        assert len(await decoded(decode, [IMAGE] * SHARE)) == SHARE

    run(story())


def test_the_request_with_the_fewest_turns_goes_first(run):
    """A score waits for one decode of a batch, not for the batch."""

    async def story() -> list[str]:
        turns, order = Turns(1), []

        async def take(name: str, queue: Queue) -> None:
            async with turns.turn(queue):
                order.append(name)

        batch = Queue()
        async with asyncio.TaskGroup() as group, turns.turn(batch):
            for queue, name in ((batch, "batch"), (batch, "batch"), (Queue(), "one"), (Queue(), "two")):
                group.create_task(take(name, queue))
            await asyncio.sleep(0)
        return order

    assert run(story()) == ["one", "two", "batch", "batch"]


def test_a_turn_that_is_given_up_while_it_waits_goes_to_the_next(run):
    async def story() -> None:
        turns = Turns(1)

        async def take() -> None:
            async with turns.turn(Queue()):
                pass

        async with turns.turn(Queue()):
            waiting = [asyncio.create_task(take()) for _ in range(2)]
            await asyncio.sleep(0)
            waiting[0].cancel()
        await waiting[1]
        assert turns._free == 1 and not turns._queues

    run(story())


def test_a_decode_ends_at_its_deadline_with_its_process_and_the_next_one_works(run):
    processes = Workers(1, heif=False)

    async def story() -> None:
        pid = await processes.run(_pid, seconds=20)
        with pytest.raises(InvalidImage, match=r"more than 0.3 s"):
            await processes.run(_work_for_ever, seconds=0.3)
        assert await processes.run(_pid, seconds=20) != pid
        assert await decoded(decoder(processes=processes), [IMAGE]) == [(LARGE_SIDE, LARGE_SIDE)]

    run(story())


def test_a_request_that_is_given_up_ends_its_decode(run):
    """The process of the one that runs is ended; those that wait never begin."""

    processes = Workers(1, heif=False)

    async def story() -> None:
        decode, queue = decoder(processes=processes), Queue()
        calls = [asyncio.create_task(decode.run(queue, _work_for_ever)) for _ in range(3)]
        await until(lambda: queue.turns == 1)
        for call in calls:
            call.cancel()
        assert isinstance(await decode.run(Queue(), _pid), int)
        assert queue.turns == 1 and not decode._given_up

    run(story())


def test_processes_that_are_killed_from_outside_are_replaced(run):
    processes = Workers(2, heif=False)

    async def story() -> None:
        for _ in range(3):
            with pytest.raises(InvalidImage):
                await processes.run(_killed, seconds=20)
        assert isinstance(await processes.run(_pid, seconds=20), int)

    run(story())


def test_a_call_whose_process_ends_for_another_one_is_tried_again(run, tmp_path: Path):
    assert run(Workers(1, heif=False).run(_killed_the_first_time, tmp_path / "mark", seconds=20)) == "done"


HOLDS_NOTHING = """
import asyncio, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from PIL import Image
from service.images.workers import give_back_freed, keep_freed

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

def work(_):
    held = [(Image.new("RGB", (2000, 1500)), bytes(3 * 2**20)) for _ in range(8)]
    return bytes(100_000)

async def given_back(limit):
    giving, until = asyncio.create_task(give_back_freed()), time.monotonic() + 20
    while resident() > limit and time.monotonic() < until:
        await asyncio.sleep(0.05)
    giving.cancel()

keep_freed(8 * 2**20)
before = resident()
with ThreadPoolExecutor(4) as pool:
    kept = list(pool.map(work, range(16)))
asyncio.run(given_back(before + 60))
print(resident() - before)
"""


@pytest.mark.slow
def test_freed_pixels_and_files_do_not_stay_in_the_heaps_of_threads():
    """Without measures it keeps some 200 MiB."""
    grown = subprocess.run([sys.executable, "-c", HOLDS_NOTHING], check=True, capture_output=True, text=True).stdout
    assert float(grown) <= 60


def test_a_later_block_is_not_taken_for_a_closed_one():
    first = Block(b"first")
    address = first.address
    first.close()
    with pytest.raises(OSError):
        address.open()
    later = Block(b"later")
    assert later.address.path == address.path, "the descriptor is not used again: nothing is tested"
    with pytest.raises(FileNotFoundError):
        address.open()
    later.close()


def test_small_pictures_are_decoded_with_their_header_only_while_there_is_room_for_them(run):
    """Else requests of countless small pictures, which reserve nothing before they are read, would fill the memory."""

    async def story() -> None:
        decode, small = decoder(), picture(side=64)
        decode.room_ahead = 2
        async with decode.tried([small] * 4) as pictures, decode.tried([small, b"none"]):
            assert decode.room_ahead == 0
            assert [(await one.pixels()).size for one in pictures] == [(64, 64)] * 4
        assert decode.room_ahead == 2
        async with decode.tried([IMAGE]):
            assert decode.room_ahead == 2, "a large picture waits for its memory"
        async with decode._turns.turn(Queue()), decode._turns.turn(Queue()):
            waiting = asyncio.create_task(decoded(decode, [small]))
            await until(lambda: decode.room_ahead == 1)
            waiting.cancel()
            await asyncio.wait([waiting])
        assert decode.room_ahead == 2

    run(story())


def test_an_engine_can_tell_pictures_apart_by_their_files(run):
    """vLLM's name for it: an ImageID that is a UUID. The same pixels from another file have another one."""

    async def story() -> list[Any]:
        files = [picture(), picture(), picture(kind="BMP")]
        async with decoder().opened(files) as pictures:
            return [(await one.pixels()).getexif()[ExifTags.Base.ImageID] for one in pictures]

    first, again, other = run(story())
    assert isinstance(first, UUID) and first == again != other


def test_one_request_does_not_take_all_places_for_fetching(run, monkeypatch: pytest.MonkeyPatch):
    async def story() -> None:
        decode, held, fetching = decoder(), asyncio.Event(), asyncio.Event()

        async def fetch(url: str) -> bytes:
            if "slow" in url:
                fetching.set()
                await held.wait()
                raise UrlFailed("slow")
            return IMAGE

        monkeypatch.setattr(decode.remote, "fetch", fetch)

        async def batch() -> list[Any]:
            async with decode.tried([f"https://slow/{number}" for number in range(64)]) as pictures:
                return pictures

        asked = asyncio.create_task(batch())
        await fetching.wait()
        assert len(await decoded(decode, ["https://quick/"])) == 1
        held.set()
        assert all(isinstance(failure, UrlFailed) for failure in await asked)

    run(story())


@pytest.fixture
def without_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _form(path: str, names: Sequence[str]) -> Callable[[Any], Any]:
    files = [(name, picture(level, side=LARGE_SIDE)) for level, name in enumerate(names)]
    return lambda client: client.post(path, files=files)


def _internal(path: str, body: dict[str, Any]) -> Callable[[Any], Any]:
    images = {name: base64.b64encode(picture(level, side=LARGE_SIDE)).decode() for level, name in enumerate("ab")}
    headers = {"Authorization": f"Bearer {KEY}"}
    return lambda client: client.post(path, json={"images": images, **body}, headers=headers)


REQUESTS = {
    "score": _form("/v1/score", ["image"]),
    "compare": _form("/v1/compare", ["first", "second"]),
    "batch": _form("/v1/score/batch", ["images"] * 3),
    "rank": _form("/v1/rank", ["images"] * 3),
    "rollouts": _internal("/internal/rollouts", {"prompts": [{"task": "score", "images": ["a"], "samples": 2}]}),
    "exact votes": _internal("/internal/exact-votes", {"pairs": [["a", "b"]]}),
}
ENDS = ("answered", "failed", "timed out", "hung up", "hung up while a picture is decoded")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", REQUESTS)
def test_pixels_end_with_their_request_without_the_garbage_collector(
    make_world: Callable[..., World], run, without_collector, kind: str, end: str
):
    world = make_world(request_seconds=0.5 if end == "timed out" else 60, cache_entries=0)
    internal = kind in {"rollouts", "exact votes"}
    if end == "timed out" and internal:
        pytest.skip("operators' requests have no deadline")
    decoded = decodes(world)

    async def story() -> None:
        async with world.operators() if internal else world.public() as client:
            if end == "failed":
                world.engine.failure = RuntimeError("the engine failed")
            world.engine.seconds = 0 if end in {"answered", "failed"} else 60
            asked = asyncio.create_task(REQUESTS[kind](client))
            if end.startswith("hung up"):
                await until(lambda: world.engine.running if end == "hung up" else decoded)
                asked.cancel()
            await asyncio.wait([asked])
            await until(lambda: not world.engine.running and not world.service.decoder._given_up)

    run(story())
    assert not living_pixels()


def living_pixels() -> list[Image.Image]:
    """The large images in memory that still have their pixels."""
    images = [found for found in gc.get_objects() if issubclass(type(found), Image.Image)]
    return [image for image in images if image.size == (LARGE_SIDE, LARGE_SIDE) and not _is_closed(image)]


def _is_closed(image: Image.Image) -> bool:
    try:
        image.getpixel((0, 0))
    except ValueError:
        return True
    return False


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def _pid() -> int:
    return os.getpid()


def _work_for_ever() -> None:
    while True:
        time.sleep(0.01)


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killed_the_first_time(mark: Path) -> str:
    if not mark.exists():
        mark.touch()
        _killed()
    return "done"
