"""Whether the service can answer, asked through the engine's own queue of work."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from service.errors import NotReady, ServiceError
from service.observability import metrics

if TYPE_CHECKING:
    from service.app import Service

REPORT_SECONDS = 5.0


async def check_ready(service: Service) -> None:
    """Raises NotReady while draining and if the engine does not answer in time; EngineDead."""
    try:
        await _probe(service)
    except ServiceError:
        metrics.ready.set(0)
        raise
    metrics.ready.set(1)


async def report_readiness(service: Service) -> None:
    """Keeps `iqa_ready` true even where nobody probes. Never ends."""
    while True:
        with contextlib.suppress(ServiceError):
            await check_ready(service)
        await asyncio.sleep(REPORT_SECONDS)


async def _probe(service: Service) -> None:
    if service.draining:
        raise NotReady("The service is shutting down.")
    try:
        await asyncio.wait_for(service.engine.probe(), service.settings.probe_seconds)
    except TimeoutError:
        raise NotReady("The engine does not answer.") from None
