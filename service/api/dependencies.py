"""Dependencies of the routes: keys, rates, admission, roles."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from evoquality.contract import Role
from service.api.body import pieces
from service.api.service import service_of
from service.errors import TooBusy, Unauthorized, WrongRole
from service.observability import metrics

Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]

_WHY = {
    "serve": "This is a rollout engine: its weights are the trainer's, and change at every step. Ask a serving engine.",
    "rollout": "This engine serves users: its weights change by promotion only. Ask one started with --role rollout.",
}


async def authorise(request: Request, bearer: Bearer) -> None:
    """Lets in callers with one of the service's keys, or everybody if it has none. Raises Unauthorized."""
    keys = service_of(request).keys
    request.state.key = keys and await keys.find(bearer.credentials if bearer else "")
    if keys and not request.state.key:
        raise Unauthorized("Send one of this service's keys as a bearer token.")


def require_key(key: str) -> Callable[[Bearer], Awaitable[None]]:
    """A dependency that raises Unauthorized unless the bearer token is `key`."""
    expected = hashlib.sha256(key.encode()).digest()

    async def check(bearer: Bearer) -> None:
        given = hashlib.sha256(bearer.credentials.encode() if bearer else b"").digest()
        if not hmac.compare_digest(given, expected):
            raise Unauthorized("Send the operators' key as a bearer token.")

    return check


async def running(request: Request) -> AsyncIterator[None]:
    """Counts a running request against its key until it is answered. Needs `authorise` first. Raises RateLimited."""
    if (key := request.state.key) is None:
        yield
        return
    with service_of(request).rates.running(key):
        yield


async def charge_one(request: Request) -> None:
    """Charges one request to its key, before its body is read. Needs `authorise` first. Raises RateLimited."""
    if key := request.state.key:
        await service_of(request).rates.charge(key, 1)


async def charge_others(request: Request, images: int) -> None:
    """Charges a request, which `charge_one` charged for one of its images, for the others.

    Raises RateLimited; InvalidRequest if the key never allows so many at once. Then the request has cost nothing.
    """
    if key := request.state.key:
        await service_of(request).rates.charge(key, images, paid=1)


class Admission:
    """Counts the bytes of public requests' bodies as they arrive, and the requests whose bodies are there.

    A caller, a key or else an address, may hold as many bytes as are left for the others: one alone half of them, two
    a third each. So no caller can leave nothing to the next.
    """

    def __init__(self, limit: int, max_bytes: int) -> None:
        self._limit = limit
        self._bytes_left = max_bytes
        self._held: Counter[str] = Counter()
        self._count = 0

    async def __call__(self, request: Request) -> AsyncIterator[None]:
        """Sets the state's `arriving`: the body, at whose end the request has its place. Needs `authorise` first."""
        check_open(request)
        with ExitStack() as held:
            request.state.arriving = arriving = self._arriving(request, held)
            async with aclosing(arriving):
                yield

    async def _arriving(self, request: Request, held: ExitStack) -> AsyncGenerator[bytes, None]:
        key = request.state.key
        caller = key.name if key else request.client.host if request.client else ""
        arrived = 0
        held.callback(lambda: self._hold(caller, -arrived))
        async for piece in pieces(request):
            if self._held[caller] + len(piece) > self._bytes_left - len(piece):
                raise TooBusy("One caller's bodies fill their share (max_bodies_mib); retry after Retry-After.")
            self._hold(caller, len(piece))
            arrived += len(piece)
            yield piece
        held.enter_context(self._place())
        if key:
            held.enter_context(service_of(request).rates.running(key))

    def _hold(self, caller: str, size: int) -> None:
        self._bytes_left -= size
        self._held[caller] += size
        if not self._held[caller]:
            del self._held[caller]

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._count >= self._limit:
            raise TooBusy("The service is at its limit of requests (max_in_flight); retry after Retry-After.")
        self._count += 1
        metrics.in_flight.set(self._count)
        try:
            yield
        finally:
            self._count -= 1
            metrics.in_flight.set(self._count)


def check_open(request: Request) -> None:
    """Guards routes that begin work. Raises EngineDead, EngineHangs, and NotReady while the service drains."""
    service_of(request).readiness.check_open()


def only_in(role: Role) -> Callable[[Request], None]:
    """A dependency that raises WrongRole unless the service runs in `role`."""

    def check(request: Request) -> None:
        if service_of(request).settings.role != role:
            raise WrongRole(_WHY[role])

    return check
