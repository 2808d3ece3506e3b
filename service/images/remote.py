"""Fetches images over https, only from hosts that the settings allow.

The URL is parsed once, by the client that connects. The host is resolved once, and the connection goes to that very
address, so that no second lookup can lead elsewhere. TLS checks the certificate of the host's name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TypeGuard

import httpx

from service.errors import UrlFailed, UrlRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

HTTPS = 443
_CONNECT_SECONDS, _READ_SECONDS = 3.0, 5.0
_MAX_URL = 2048
_LOOKUPS = ThreadPoolExecutor(4, thread_name_prefix="lookup")
"""Own threads, so that a name server that does not answer keeps nothing else waiting."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_url(source: bytes | str) -> TypeGuard[str]:
    """True if an image's source is a web address."""
    return isinstance(source, str) and source[:8].lower().startswith(("https://", "http://"))


def is_public(address: Address) -> bool:
    """True if an address lies on the public internet, and so does any IPv4 address that it wraps."""
    if isinstance(address, ipaddress.IPv6Address):
        wrapped = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            wrapped = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if wrapped:
            return is_public(wrapped)
        if address.teredo or address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_private)


async def resolve(host: str) -> list[Address]:
    """Every address of a host, the best first. Raises OSError."""
    look_up = partial(socket.getaddrinfo, host, HTTPS, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_LOOKUPS, look_up)
    return [ipaddress.ip_address(sockaddr[0]) for *_, sockaddr in found]


@cache
def _authorities() -> ssl.SSLContext:
    """The public certificate authorities, without those that the environment adds."""
    return httpx.create_ssl_context(trust_env=False)


@dataclass(frozen=True, slots=True)
class Network:
    """Name lookup, allowed addresses and TLS of a fetch."""

    resolve: Callable[[str], Awaitable[Sequence[Address]]] = resolve
    may_connect: Callable[[Address], bool] = is_public
    tls: ssl.SSLContext = field(default_factory=_authorities)
    port: int = HTTPS


class Remote:
    """Fetches files of at most `max_bytes` within `seconds` from `hosts`. Without hosts it refuses everything."""

    def __init__(self, hosts: Collection[str], max_bytes: int, seconds: float, network: Network | None = None) -> None:
        self._hosts = frozenset(hosts)
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._network = network or Network()

    async def fetch(self, url: str) -> bytes:
        """Fetches the bytes at a URL. Raises UrlRefused before any connection, UrlFailed after."""
        target = self._checked(url)
        try:
            async with asyncio.timeout(self._seconds):
                return await self._first_answer(target, await self._addresses(target.host))
        except TimeoutError:
            raise UrlFailed("The image did not arrive in time.") from None
        except (httpx.HTTPError, OSError, ValueError):
            raise UrlFailed("The image could not be fetched from its host.") from None

    def _checked(self, url: str) -> httpx.URL:
        if not self._hosts:
            raise UrlRefused("This service fetches no images; send the image itself.")
        if len(url) > _MAX_URL:
            raise UrlRefused(f"The image's address is longer than {_MAX_URL} characters.")
        try:
            target = httpx.URL(url)
        except httpx.InvalidURL:
            raise UrlRefused("The image's address is malformed.") from None
        if target.scheme != "https" or target.port not in (None, HTTPS) or target.userinfo:
            raise UrlRefused("Image URLs must use https, port 443 and no user name or password.")
        if target.host not in self._hosts:
            raise UrlRefused("This service does not fetch images from that host.")
        return target

    async def _addresses(self, host: str) -> Sequence[Address]:
        addresses = await self._network.resolve(host)
        if not addresses or not all(map(self._network.may_connect, addresses)):
            raise UrlFailed("The image could not be fetched from its host.")
        return addresses

    async def _first_answer(self, url: httpx.URL, addresses: Sequence[Address]) -> bytes:
        for address in addresses[:-1]:
            try:
                return await self._get(url, address)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._get(url, addresses[-1])

    async def _get(self, url: httpx.URL, address: Address) -> bytes:
        """Asks one address for the file, as the URL's host, on a new connection."""
        limits = httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS)
        async with httpx.AsyncClient(verify=self._network.tls, trust_env=False, timeout=limits) as client:
            request = client.build_request(
                "GET",
                url.copy_with(host=str(address), port=self._network.port),
                headers={"Host": url.host, "Accept": "image/*", "Accept-Encoding": "identity"},
                extensions={"sni_hostname": url.host},
            )
            response = await client.send(request, stream=True, follow_redirects=False)
            try:
                return await self._body(response)
            finally:
                await response.aclose()

    async def _body(self, response: httpx.Response) -> bytes:
        if response.status_code != httpx.codes.OK:
            raise UrlFailed("The image's host answered with an error or a redirection.")
        body = bytearray()
        async for part in response.aiter_raw():  # as sent: decompressed, a part could be of any size
            body += part
            if len(body) > self._max_bytes:
                raise UrlFailed(f"The image file is longer than {self._max_bytes} bytes.")
        return bytes(body)
