"""Clients that take their time, over real connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

import pytest

from service.server import _bind, _server
from tests.service.conftest import World
from tests.service.test_watch import TEXT, working

SECONDS = 0.2
SOON = 10.0
"""Generous to a busy machine; everything that does not end by its deadline ends much later, or never."""
HEAD = b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.fixture
def slow_world(make_world) -> World:
    return make_world(header_seconds=SECONDS, body_seconds=SECONDS, keep_alive_seconds=60)


@asynccontextmanager
async def serving(world: World) -> AsyncIterator[tuple[str, int]]:
    """The address of the public application behind the real server."""
    bound = _bind("127.0.0.1", 0)
    server = _server(world.public_app, world.settings)
    task = asyncio.create_task(server.serve([bound]))
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield bound.getsockname()
    finally:
        server.should_exit = True
        await task
        bound.close()


async def drip(address: tuple[str, int], *first: bytes, drop: bytes = b"") -> tuple[bytes, float]:
    """Sends the beginning at once, then a drop every 20 ms. Returns what came back and when the connection ended."""
    reader, writer = await asyncio.open_connection(*address)
    begin = perf_counter()
    came = bytearray()

    async def listen() -> None:
        with contextlib.suppress(OSError):  # a reset takes back nothing that came before it
            while part := await reader.read(1000):
                came.extend(part)

    answer = asyncio.create_task(listen())
    with contextlib.suppress(OSError):
        writer.write(b"".join(first))
        while not answer.done() and perf_counter() - begin < SOON:
            await asyncio.sleep(0.02)
            writer.write(drop)
            await writer.drain()
    await asyncio.wait_for(answer, SOON)
    seconds = perf_counter() - begin
    writer.close()
    return bytes(came), seconds


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"", b""),
        (b"GET /health/live HT", b""),
        (b"GET /health/live HTTP/1.1\r\nX: ", b"x"),
        (b"", b"\r\n"),
        (HEAD, b"\r\n"),
        (HEAD + b"GET /health/li", b""),
        (HEAD + b"GET / HTTP/1.1\r\nX: ", b"x"),
    ],
    ids=["silence", "half a line", "drops", "empty lines", "empty lines after", "half a second", "drops of a second"],
)
def test_a_head_has_its_time_however_it_drips(slow_world: World, run, first: bytes, drop: bytes):
    async def story() -> float:
        async with serving(slow_world) as address:
            return (await drip(address, first, drop=drop))[1]

    assert SECONDS * 0.8 < run(story()) < SOON


def test_a_head_without_end_is_cut_off(make_world, run):
    world = make_world(header_seconds=60)

    async def story() -> float:
        async with serving(world) as address:
            return (await drip(address, b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000))[1]

    assert run(story()) < SOON


def test_a_body_that_drips_is_told_and_then_cut_off(slow_world: World, run):
    head = b"POST /v1/score HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 10000\r\n\r\n"

    async def story() -> tuple[bytes, float]:
        async with serving(slow_world) as address:
            return await drip(address, head, drop=b" ")

    answer, seconds = run(story())
    assert b" 408 " in answer and b"body_timeout" in answer
    assert seconds < SOON


def test_a_body_that_nobody_reads_is_cut_off_after_the_answer(slow_world: World, run):
    head = b"POST /nowhere HTTP/1.1\r\nHost: test\r\nContent-Length: 100000\r\n\r\n"

    async def story() -> tuple[bytes, float]:
        async with serving(slow_world) as address:
            return await drip(address, head, drop=b" ")

    answer, seconds = run(story())
    assert b" 404 " in answer
    assert seconds < SOON


def test_an_answer_that_takes_long_is_waited_for(slow_world: World, run):
    """The deadline of the head is not one of the answer, even if the client sends an empty line too many."""
    slow_world.engine.seconds = 3 * SECONDS
    body = b'{"image": "%s"}' % TEXT.encode()
    head = b"POST /v1/score HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"

    async def story() -> bytes:
        async with serving(slow_world) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(head % len(body) + body + b"\r\n")
            return await reader.readuntil(b"}")

    assert b" 200 " in run(story())


def test_a_connection_is_kept_for_the_next_request(slow_world: World, run):
    async def story() -> list[bytes]:
        async with serving(slow_world) as address:
            reader, writer = await asyncio.open_connection(*address)
            answers = []
            for _ in range(2):
                writer.write(HEAD)
                answers.append(await reader.readuntil(b"}"))
                await asyncio.sleep(2 * SECONDS)
            return answers

    assert all(b" 200 " in answer for answer in run(story()))


def test_a_connection_too_many_is_closed_and_its_place_is_free_again(make_world, run):
    async def asked(address: tuple[str, int]) -> tuple[bytes, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*address)
        with contextlib.suppress(OSError):
            writer.write(HEAD)
            return await reader.read(15), writer
        return b"", writer

    async def story() -> list[bytes]:
        async with serving(make_world(max_connections=2)) as address:
            answers, kept = zip(*[await asked(address) for _ in range(4)], strict=True)
            kept[0].close()
            again = b""
            while not again:
                again, _ = await asked(address)
            return [*answers, again]

    ok = b"HTTP/1.1 200 OK"
    assert run(story()) == [ok, ok, b"", b"", ok]


def test_long_bodies_are_not_counted_as_heads(world: World, run):
    """However the bytes fall into packets, on one connection."""
    body = b"x" * 150_000
    head = b"POST /v1/score HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    request = head % len(body) + body

    async def story() -> list[bytes]:
        async with serving(world) as address:
            reader, writer = await asyncio.open_connection(*address)
            answers = []
            for cut in (0, 10, 60, len(request) - 100_000, len(request) - 1):
                writer.write(request[:cut])
                await writer.drain()
                await asyncio.sleep(0.01)
                writer.write(request[cut:])
                answers.append(await reader.readuntil(b"}"))
            return answers

    assert all(b" 422 " in answer for answer in run(story()))


def test_a_client_that_hangs_up_frees_the_engine_of_the_real_server(slow_world: World, run):
    slow_world.engine.seconds = 30.0
    body = b'{"image": "%s"}' % TEXT.encode()
    head = b"POST /v1/score HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"

    async def story() -> None:
        async with serving(slow_world) as address:
            with socket.create_connection(address) as client:
                client.setblocking(False)
                client.sendall(head % len(body) + body)
                await working(slow_world)
            while slow_world.engine.running:
                await asyncio.sleep(0.01)

    run(story())
