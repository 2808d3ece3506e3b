"""Requests that no client library would send: each is refused or cut off, none is the service's failure."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from service.concurrency import gather
from tests.service.conftest import World
from tests.service.test_slow_clients import HEAD, SOON, serving

REQUEST_LINES = (
    "", " ", "GET", "GET /", "GET  /  HTTP/1.1", "GET / HTTP/9.9", "GET / HTTP/1.0", "GET / http/1.1", "get / HTTP/1.1",
    "GET / HTTP/1.1 x", "FOO /v1/score HTTP/1.1", "PRI * HTTP/2.0", "CONNECT 127.0.0.1:80 HTTP/1.1", "TRACE / HTTP/1.1",
    "OPTIONS * HTTP/1.1", "POST * HTTP/1.1", "GET http://127.0.0.1:1/v1/info HTTP/1.1", "GET //etc/passwd HTTP/1.1",
    "GET /../../etc/passwd HTTP/1.1", "GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1", "GET /v1/info%00 HTTP/1.1",
    "GET /v1/%ff%fe HTTP/1.1", "GET /v1/info?" + "a=b&" * 2000 + " HTTP/1.1", "GET /" + "x" * 100_000 + " HTTP/1.1",
    "HEAD /v1/score HTTP/1.1", "DELETE /v1/versions HTTP/1.1", "POST /v1/score HTTP/1.1", "POST /v1/score/ HTTP/1.1",
)  # fmt: skip
HEADERS = (
    "Content-Length: -1", "Content-Length: 1e3", "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: gzip", "Content-Length: " + "9" * 40,
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding:\x0bchunked", "Expect: 100-continue", "Expect: nonsense", "Upgrade: h2c\r\nConnection: Upgrade",
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x", "Host: a\r\nHost: b", "Host:", "Host: \xff",
    " folded: value", "Name with space: x", "No-Colon", ": empty", "X: " + "y" * 100_000, "X: \x00", "X: a\nY: b",
    "Cookie: " + "c=d; " * 1000, "Authorization: Bearer", "Authorization: \xff\xfe", "Content-Type: \xff",
    "X-Request-Timeout-Ms: -1", "X-Request-Timeout-Ms: nan", "X-Request-Timeout-Ms: 1e400", "X-Request-Id: \xff" * 50,
    "Accept: ;;q=,", "Accept: */*;q=-1", "Range: bytes=0-", "Content-Encoding: gzip", "Connection: close, keep-alive",
)  # fmt: skip
BODIES = (
    b"", b"{}", b"0\r\n\r\n", b"ZZ\r\nx\r\n0\r\n\r\n", b"-1\r\nx\r\n0\r\n\r\n", b"ffffffffffffffffff\r\nx",
    b"5\r\nhello", b"5;ext=" + b"e" * 50_000 + b"\r\nhello\r\n0\r\n\r\n", b"1\r\nx\r\n0\r\nTrailer: y\r\n\r\n",
    b"1\r\nxx\r\n0\r\n\r\n",
)  # fmt: skip
BYTES = (b"\x00" * 1000, b"\xff" * 1000, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\r\n" * 5000, b"PING\r\n")


def requests() -> list[bytes]:
    """All of them."""
    post = "POST /v1/score HTTP/1.1\r\nHost: test\r\n"
    lines = [f"{line}\r\nHost: test\r\n\r\n".encode() for line in REQUEST_LINES]
    headers = [f"{post}{header}\r\n\r\n".encode("latin-1") + b"{}" for header in HEADERS]
    chunked = f"{post}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return [*lines, *headers, *(chunked + body for body in BODIES), *BYTES]


async def _statuses(address: tuple[str, int], request: bytes) -> list[int]:
    """The statuses that came before the connection ended."""
    reader, writer = await asyncio.open_connection(*address)
    came = bytearray()
    with contextlib.suppress(OSError):  # a reset takes back nothing that came before it
        writer.write(request)
        while part := await asyncio.wait_for(reader.read(65536), SOON):
            came += part
    writer.close()
    return [int(line[9:12]) for line in bytes(came).split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


@pytest.fixture
def raw_world(make_world) -> World:
    return make_world(header_seconds=0.2, body_seconds=0.2, keep_alive_seconds=1)


def test_no_raw_request_is_an_accident_and_the_next_one_is_answered(raw_world: World, run):
    async def story() -> None:
        async with serving(raw_world) as address:
            asked = requests()
            answered = await gather(*(_statuses(address, one) for one in asked))
            for request, statuses in zip(asked, answered, strict=True):
                assert all(status < 500 for status in statuses), (request[:200], statuses)
            assert sum(map(bool, answered)) > len(asked) / 2, "most of them are told what is wrong"
            assert await _statuses(address, HEAD) == [200]

    run(story())


def test_there_are_seventy_five_of_them():
    assert len(set(requests())) >= 75
