"""The way to a service: its address, and the proxy of the environment that leads there.

Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Self
from urllib.request import getproxies, proxy_bypass

import httpx

_PROXIES = ("http", "https", "socks5", "socks5h")
_USER = re.compile(r"^([a-z0-9+.-]+://)?.*@", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Way:
    """An address, and the proxy through which it is reached; None goes straight there."""

    url: httpx.URL
    proxy: httpx.Proxy | None

    @classmethod
    def to(cls, address: str) -> Self:
        """Raises httpx.InvalidURL if the address, or the environment's proxy for it, cannot be used."""
        url = _checked(address.strip())
        return cls(url, None if _is_loopback(url.host) else _proxy(url))

    def transport(self) -> httpx.HTTPTransport:
        """Connects blocking clients."""
        return httpx.HTTPTransport(proxy=self.proxy)

    def async_transport(self) -> httpx.AsyncHTTPTransport:
        """Connects asynchronous clients, without a limit of connections."""
        return httpx.AsyncHTTPTransport(proxy=self.proxy, limits=httpx.Limits(max_connections=None))

    @property
    def proxied(self) -> str:
        """Names the proxy, without its password, behind an address; empty if there is none."""
        return f" through the proxy {self.proxy.url}" if self.proxy else ""

    @contextmanager
    def named(self) -> Iterator[None]:
        """Adds the proxy to the message of a failed request."""
        try:
            yield
        except httpx.TransportError as error:
            if self.proxy is None:
                raise
            raise type(error)(f"{error or type(error).__name__},{self.proxied}") from error


def without_user(address: str) -> str:
    """An address, well-formed or not, without user name and password."""
    return _USER.sub(r"\1", address)


def _checked(address: str) -> httpx.URL:
    if url := _parsed(address, {"http", "https"}):
        return url
    shown = without_user(address)
    example = shown if shown and "://" not in shown else "127.0.0.1:8000"
    raise httpx.InvalidURL(f"{shown!r} is not the address of a service. Give one like http://{example}")


def _parsed(address: str, schemes: Collection[str]) -> httpx.URL | None:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        return None
    return url if url.scheme in schemes and url.host and (url.port or 0) < 2**16 else None


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _proxy(url: httpx.URL) -> httpx.Proxy | None:
    """The environment's proxy for an address, as `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say."""
    known = getproxies()
    setting = (known.get(url.scheme) or known.get("all") or "").strip()
    if not setting or proxy_bypass(url.netloc.decode("ascii")):
        return None
    proxy = _parsed(setting if "://" in setting else f"http://{setting}", _PROXIES)
    if proxy is None:
        reason = f"it is not a URL of a known kind ({', '.join(_PROXIES)})"
    elif proxy.scheme.startswith("socks") and find_spec("socksio") is None:
        reason = "SOCKS needs a package, pip install 'httpx[socks]'"
    else:
        return httpx.Proxy(proxy)
    shown = without_user(setting)
    raise httpx.InvalidURL(
        f"The environment's proxy {shown!r} ({url.scheme.upper()}_PROXY or ALL_PROXY) cannot be used: {reason}. "
        f"Correct it, or set NO_PROXY={url.host} to do without"
    )
