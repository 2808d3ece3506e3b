"""Clients in networks as people have them: proxies of every kind, addresses of every form."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from evoquality import AsyncClient, Client
from tests.service.conftest import KEY, Listening, picture
from tests.service.gateway import Gateway, gateway
from tests.service.test_cli import evoquality

ELSEWHERE = "http://service.example:8000"
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def proxy(listening: Listening, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """A proxy of the environment that leads every host to the service, and wants a password."""
    with gateway(listening.url) as between:
        monkeypatch.setenv("HTTP_PROXY", between.url.replace("//", "//user:secret@"))
        monkeypatch.setenv("HTTPS_PROXY", between.url.replace("//", "//user:secret@"))
        yield between


@pytest.mark.parametrize("setting", ["socks5://127.0.0.1:9", "http://127.0.0.1:9", "nonsense://x", "http://[::1", "%"])
def test_this_machine_is_never_asked_through_a_proxy(setting: str, listening: Listening, run, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", setting)

    async def story() -> str:
        async with AsyncClient(listening.url) as client:
            return (await client.info()).version

    for url in (listening.url, listening.url.replace("127.0.0.1", "localhost")):
        with Client(url) as client:
            assert client.wait_ready(5).version == client.score(picture(9)).version == run(story())
        assert evoquality("info", url=url).exit_code == 0


@pytest.mark.parametrize(
    "setting",
    [
        "socks5://user:secret@proxy.example:1080",
        "socks4://user:secret@proxy.example",
        "nonsense://user:secret@proxy.example",
        "http://user:secret@proxy.example:none",
        "http://user:sec/ret@[::1",
        "http://user:secret@proxy.example:99999",
        "http://",
        "user:secret@",
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_without_its_password(setting: str, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", setting)
    for client in (Client, AsyncClient):
        with pytest.raises(httpx.InvalidURL, match=r"ALL_PROXY.*NO_PROXY=service\.example") as refused:
            client(ELSEWHERE)
        assert "sec" not in str(refused.value)
    told = evoquality("info", url=ELSEWHERE)
    assert (told.exit_code, "ALL_PROXY" in told.stderr, "sec" in told.stderr) == (2, True, False)
    monkeypatch.setenv("NO_PROXY", "service.example")
    Client(ELSEWHERE).close()


def test_a_proxy_of_the_environment_is_used(proxy: Gateway, listening: Listening):
    with Client(ELSEWHERE) as client:
        assert client.info().version == listening.world.first
    assert proxy.asked == ["/v1/info"]


@pytest.mark.parametrize("url", [ELSEWHERE, "https://service.example"])
def test_a_proxy_that_refuses_is_named(proxy: Gateway, url: str):
    proxy.instead = lambda path: (407, {}, b"who are you?")
    told = evoquality("info", url=url)
    assert (told.exit_code, f"through the proxy {proxy.url}" in told.stderr) == (2, True)
    assert "407" in told.stderr and "secret" not in told.stderr


def test_a_proxy_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr("evoquality.retries._wait", lambda state: 0)
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:9")
    told = evoquality("versions", "list", url=ELSEWHERE)
    assert (told.exit_code, "through the proxy http://127.0.0.1:9" in told.stderr) == (2, True)
    assert "secret" not in told.stderr


@pytest.mark.parametrize(
    "url", ["localhost:8000", "127.0.0.1:8000", "//example.com", "ftp://example.com", "", "http://"]
)
def test_an_address_that_is_none_is_said_at_once(url: str):
    for client in (Client, AsyncClient):
        with pytest.raises(httpx.InvalidURL, match=r"not the address of a service\. Give one like http://"):
            client(url)
    told = evoquality("info", "--url", url)
    assert (told.exit_code, "Give one like http://" in told.stderr) == (2, True)


def test_blanks_around_an_address_or_a_key_do_no_harm(listening: Listening):
    with Client(f" {listening.url}\n") as client, Client(listening.operator_url, f"{KEY}\n") as operators:
        assert client.info().version == operators.promote(listening.world.first).version
