"""Whether the service can answer, asked through the engine's own queue of work."""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic
from typing import TYPE_CHECKING

from service.errors import EngineDead, NotFollowing, NotReady, ServiceError
from service.observability import metrics

if TYPE_CHECKING:
    from service.app import Service

REPORT_SECONDS = 5.0
SHARED_SECONDS = 1.0
"""How long an answer of the engine stands for all who ask: probes are open, and are no way to keep it busy."""


class Readiness:
    """Asks the engine whether it answers, for everybody together."""

    def __init__(self) -> None:
        self._asked = 0.0
        self._probe: asyncio.Task[None] | None = None

    async def check(self, service: Service) -> None:
        """Raises NotReady while draining, if the engine does not answer in time or with other weights; EngineDead;
        NotFollowing if the active version cannot be loaded.
        """
        try:
            if service.draining:
                raise NotReady("The service is shutting down.")
            if service.engine.dead():
                raise EngineDead("The engine is dead; the service is about to restart.")
            await asyncio.shield(self._shared(service))
            if service.follower and (failure := service.follower.failure):
                raise NotFollowing(f"The active version cannot be loaded, the one before it answers on: {failure}")
        except ServiceError:
            metrics.ready.set(0)
            raise
        metrics.ready.set(1)

    async def report(self, service: Service) -> None:
        """Keeps `iqa_ready` true even where nobody probes. Never ends."""
        while True:
            with contextlib.suppress(ServiceError):
                await self.check(service)
            await asyncio.sleep(REPORT_SECONDS)

    def _shared(self, service: Service) -> asyncio.Task[None]:
        """The running probe, or the last one while it is fresh."""
        stale = self._probe is None or (self._probe.done() and monotonic() - self._asked > SHARED_SECONDS)
        if stale:
            self._asked = monotonic()
            self._probe = asyncio.create_task(_ask(service))
        assert self._probe
        return self._probe


async def _ask(service: Service) -> None:
    gate = service.gate
    serving, open_before = gate.version, gate.is_open
    try:
        version = await asyncio.wait_for(service.engine.probe(), service.settings.probe_seconds)
    except TimeoutError:
        raise NotReady("The engine does not answer.") from None
    undisturbed = open_before and gate.is_open and gate.version == serving
    if undisturbed and version != serving.id:
        raise NotReady("The engine holds other weights than those that serve.")
