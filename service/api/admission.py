"""How many public requests are accepted at the same time, and with how many bytes of bodies."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import Request

from service.api.service import service_of
from service.errors import EngineDead, NotReady, TooBusy
from service.observability import metrics


class Admission:
    """A dependency that counts requests and the bytes of their bodies, and refuses those beyond the limits."""

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
    """A dependency for routes that begin work. Raises EngineDead, and NotReady while the service drains."""
    service = service_of(request)
    if service.engine.dead():
        raise EngineDead("The engine is dead; the service is about to restart.")
    if service.draining:
        raise NotReady("The service is shutting down.")
