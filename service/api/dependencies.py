"""Dependencies of the routes: keys, rates, admission, roles."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from evoquality.contract import Role
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
    """Charges one request to its key. Needs `authorise` first. Raises RateLimited."""
    await charge(request, 1)


async def charge(request: Request, images: int) -> None:
    """Charges a request once for each of its images.

    Raises RateLimited; InvalidRequest if the key never allows so many at once.
    """
    if key := request.state.key:
        await service_of(request).rates.charge(key, images)


class Admission:
    """Counts running public requests and the bytes of their bodies, and refuses those beyond the limits."""

    def __init__(self, limit: int, max_bytes: int) -> None:
        self._limit = limit
        self._max_bytes = max_bytes
        self._count = 0
        self._bytes = 0

    async def __call__(self, request: Request) -> AsyncIterator[None]:
        check_open(request)
        if self._count >= self._limit:
            raise TooBusy("The service has as many requests as it takes; try again.")
        size: int = request.state.body_bytes
        if self._bytes + size > self._max_bytes:
            raise TooBusy("The service has as many bytes of bodies as it takes; try again.")
        self._count += 1
        self._bytes += size
        metrics.in_flight.set(self._count)
        try:
            yield
        finally:
            self._count -= 1
            self._bytes -= size
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
