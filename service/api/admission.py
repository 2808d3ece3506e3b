"""How many public requests are accepted at the same time."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import Request

from service.api.service import service_of
from service.errors import EngineDead, NotReady, TooBusy
from service.observability import metrics


class Admission:
    """A dependency that counts requests, body and all, and refuses those beyond the limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0

    async def __call__(self, request: Request) -> AsyncIterator[None]:
        check_open(request)
        if self._count >= self._limit:
            raise TooBusy("The service has as many requests as it takes; try again.")
        self._count += 1
        metrics.in_flight.set(self._count)
        try:
            yield
        finally:
            self._count -= 1
            metrics.in_flight.set(self._count)


def check_open(request: Request) -> None:
    """A dependency for routes that begin work. Raises EngineDead, and NotReady while the service drains."""
    service = service_of(request)
    if service.engine.dead():
        raise EngineDead("The engine is dead; the service is about to restart.")
    if service.draining:
        raise NotReady("The service is shutting down.")
