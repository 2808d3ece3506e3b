"""Images fetched from the web: from hosts that are allowed, at public addresses, within limits; over real TLS."""

from __future__ import annotations

import asyncio
import base64
import gzip
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import trustme

from service.configuration.settings import Settings
from service.errors import UrlFailed, UrlRefused
from service.images.remote import Network, Remote, is_public, resolve
from tests.service.conftest import World, picture
from tests.service.test_http import assert_problem

HOST = "images.example.org"
IMAGE = picture(90)
AUTHORITY = trustme.CA()
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def head(length: int, status: str = "200 OK", *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {length}", *lines, "", ""]).encode()


class Server:
    """A TLS server that answers as it is told, and remembers what it was asked."""

    def __init__(self, answer: bytes | Answer, name: str = HOST) -> None:
        self.asked: list[bytes] = []
        self.names: list[str | None] = []
        self._answer = answer
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        AUTHORITY.issue_cert(name).configure_cert(self._tls)
        self._tls.sni_callback = lambda _, name, __: self.names.append(name)

    @asynccontextmanager
    async def network(self) -> AsyncIterator[Network]:
        """The world as a fetch shall see it: `HOST` is this server."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        tls = ssl.create_default_context()
        AUTHORITY.configure_trust(tls)
        try:
            yield Network(to("127.0.0.1"), lambda _: True, tls, server.sockets[0].getsockname()[1])
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(await reader.readuntil(b"\r\n\r\n"))
        try:
            if isinstance(self._answer, bytes):
                writer.write(self._answer)
                await writer.drain()
            else:
                await self._answer(reader, writer)
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


def to(*addresses: str) -> Callable[[str], Awaitable[list[Any]]]:
    async def found(host: str) -> list[Any]:
        return [ipaddress.ip_address(address) for address in addresses]

    return found


def fetch(run, server: Server, url: str = f"https://{HOST}/a.png", seconds: float = 2.0, **network: Any) -> bytes:
    async def story() -> bytes:
        async with server.network() as around:
            remote = Remote([HOST], max_bytes=5000, seconds=seconds, network=replace(around, **network))
            return await remote.fetch(url)

    return run(story())


def test_an_image_is_fetched_by_its_hosts_name_from_its_address(run):
    server = Server(head(len(IMAGE)) + IMAGE)
    assert fetch(run, server, f"https://{HOST}/a/b.png?c=d#e") == IMAGE
    (asked,) = server.asked
    assert asked.startswith(b"GET /a/b.png?c=d HTTP/1.1\r\n")
    assert server.names == [HOST]
    lines = asked.lower().split(b"\r\n")
    assert f"host: {HOST}".encode() in lines and b"accept-encoding: identity" in lines
    assert not any(line.startswith((b"cookie", b"authorization", b"proxy")) for line in lines)


def test_what_the_environment_says_of_proxies_and_passwords_is_not_used(run, monkeypatch, tmp_path):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text(f"machine {HOST} login a password b")
    server = Server(head(len(IMAGE)) + IMAGE)
    assert fetch(run, server) == IMAGE
    assert b"authorization" not in server.asked[0].lower()


def test_the_next_address_is_tried_where_nobody_answers(run):
    assert fetch(run, Server(head(len(IMAGE)) + IMAGE), resolve=to("127.0.0.2", "127.0.0.1")) == IMAGE


def test_the_next_address_is_tried_where_packets_are_lost(run, monkeypatch: pytest.MonkeyPatch):
    plain, tried = httpx.AsyncClient.send, []

    async def send(client: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        tried.append(request.url.host)
        if request.url.host == "::1":
            raise httpx.ConnectTimeout("")
        return await plain(client, request, **options)

    monkeypatch.setattr(httpx.AsyncClient, "send", send)
    assert fetch(run, Server(head(len(IMAGE)) + IMAGE), resolve=to("::1", "127.0.0.1")) == IMAGE
    assert tried == ["::1", "127.0.0.1"]


def test_another_hosts_certificate_is_refused(run):
    server = Server(head(len(IMAGE)) + IMAGE, name="other.example.org")
    with pytest.raises(UrlFailed):
        fetch(run, server)
    assert server.asked == []


def test_redirections_are_not_followed(run):
    for location in (f"https://{HOST}/b.png", "http://169.254.169.254/latest/meta-data"):
        server = Server(head(0, "302 Found", f"Location: {location}"))
        with pytest.raises(UrlFailed, match="redirection"):
            fetch(run, server)
        assert len(server.asked) == 1


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "206 Partial Content", "204 No Content"])
def test_only_a_whole_answer_is_an_image(run, status: str):
    with pytest.raises(UrlFailed):
        fetch(run, Server(head(0, status)))


def test_a_file_too_large_is_not_read_to_its_end(run):
    written = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            await writer.drain()
            written += 4096

    with pytest.raises(UrlFailed, match="5000 bytes"):
        fetch(run, Server(flood))
    assert written < 50_000_000
    with pytest.raises(UrlFailed, match="5000 bytes"):
        fetch(run, Server(head(5001) + b"x" * 5001))


def test_compressed_bytes_are_not_inflated(run):
    bomb = gzip.compress(bytes(4_000_000))
    assert fetch(run, Server(head(len(bomb), "200 OK", "Content-Encoding: gzip") + bomb)) == bomb


async def silence(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    await asyncio.sleep(10)


async def drops(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(head(4000))
    for _ in range(1000):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("answer", [silence, drops])
def test_a_slow_host_has_its_time_in_all(run, answer: Answer):
    with pytest.raises(UrlFailed, match="in time"):
        fetch(run, Server(answer), seconds=0.2)


def test_a_slow_lookup_counts_too(run):
    async def slow(host: str) -> list[Any]:
        await asyncio.sleep(10)
        return []

    with pytest.raises(UrlFailed, match="in time"):
        fetch(run, Server(b""), seconds=0.1, resolve=slow)


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n\r\n", head(100) + b"x", b"HTTP/1.1 200 OK\r\n" + b"x" * 200_000]
)
def test_a_broken_answer_says_nothing_of_how(run, answer: bytes):
    with pytest.raises(UrlFailed) as failure:
        fetch(run, Server(answer))
    assert failure.value.detail == "The image could not be fetched from its host."


PRIVATE = [
    "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "192.0.2.1",
    "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
    "fec0::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "2002:7f00:1::", "2002:a00:1::1", "::127.0.0.1",
    "::8.8.8.8", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_no_guise_of_a_private_address_is_connected_to(run, address: str):
    assert not is_public(ipaddress.ip_address(address))
    server = Server(head(len(IMAGE)) + IMAGE)
    for addresses in ((address,), ("8.8.8.8", address)):
        with pytest.raises(UrlFailed, match="could not be fetched"):
            fetch(run, server, resolve=to(*addresses), may_connect=is_public)
    assert server.asked == []


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_public_addresses_are_public(address: str):
    assert is_public(ipaddress.ip_address(address))


def test_the_real_lookup_finds_this_machine_which_is_not_public(run):
    found = run(resolve("localhost"))
    assert found and not any(map(is_public, found))


REFUSED = [
    f"http://{HOST}/a.png",
    "https://other.example.org/",
    f"https://{HOST}:8443/",
    f"https://{HOST}:80/",
    f"https://user@{HOST}/",
    f"https://:password@{HOST}/",
    f"https://{HOST}@evil.example/",
    f"https://evil.example#@{HOST}/",
    f"https://evil.example?@{HOST}/",
    f"https://evil.example\\@{HOST}/",
    f"https://{HOST}\\.evil.example/",
    f"https://{HOST}.evil.example/",
    f"https://evil{HOST}/",
    f"https://{HOST}./",
    f"https://{HOST}%00.evil.example/",
    f"https://{HOST}%2eevil.example/",
    f"https://{HOST}\r\nX: y/",
    f"https://{HOST} .evil.example/",
    f"https:///{HOST}/",
    "https://",
    "https://127.0.0.1/",
    "https://[::1]/",
    "https://2130706433/",
    "https://0x7f.1/",
    f"https://{HOST}/" + "a" * 3000,
    f"https://{HOST}:port/",
    f"https://{HOST}:99999999/",
]


@pytest.mark.parametrize("url", REFUSED)
def test_no_trick_with_the_address_leads_elsewhere(run, url: str):
    server = Server(head(len(IMAGE)) + IMAGE)
    with pytest.raises(UrlRefused) as refusal:
        fetch(run, server, url)
    assert server.asked == [] and url not in refusal.value.detail


def test_upper_case_and_the_usual_port_are_the_same_address(run):
    for url in (f"HTTPS://{HOST.upper()}/a.png", f"https://{HOST}:443/a.png"):
        assert fetch(run, Server(head(len(IMAGE)) + IMAGE), url) == IMAGE


def ask(world: World, run, image: str) -> httpx.Response:
    async def story() -> httpx.Response:
        async with world.public() as client:
            return await client.post("/v1/score", json={"image": image})

    return run(story())


def test_without_hosts_addresses_are_refused(world: World, run):
    response = ask(world, run, f"https://{HOST}/a.png")
    assert_problem(response, 422, "url_refused")
    assert "send the image itself" in response.json()["detail"]


def test_a_fetched_image_is_scored_like_a_sent_one(make_world, run):
    world = make_world(url_hosts=HOST)

    async def story() -> list[httpx.Response]:
        async with Server(head(len(IMAGE)) + IMAGE).network() as network, world.public() as client:
            world.service.decoder.remote._network = network
            sources = (f"https://{HOST}/a.png", base64.b64encode(IMAGE).decode())
            return [await client.post("/v1/score", json={"image": source}) for source in sources]

    fetched, sent = run(story())
    assert fetched.status_code == 200 and fetched.json() == sent.json()


def test_hosts_are_names_alone(make_world):
    assert make_world(url_hosts="a.example.org, b.example.org").settings.url_hosts == ("a.example.org", "b.example.org")


@pytest.mark.parametrize("hosts", ["https://a.org", "a.org/x", "127.0.0.1", "*", "localhost", "A.org", "a.org:443"])
def test_anything_but_a_name_is_a_wrong_setting(hosts: str):
    with pytest.raises(ValueError, match="url_hosts"):
        Settings(url_hosts=hosts)
