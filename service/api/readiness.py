"""Readiness: the engine answers through its own queue, with the version that serves."""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic

from service.engine.protocol import Engine
from service.engine.watchdog import Watchdog
from service.errors import EngineDead, NotFollowing, NotReady, ProblemError
from service.observability import metrics
from service.versions.follower import Follower
from service.versions.swap_lock import SwapLock

REPORT_SECONDS = 5.0
SHARED_SECONDS = 1.0
"""Lifetime of an engine's answer. Probes need no key, so they share one question and cannot keep the engine busy."""


class Readiness:
    """Asks the engine for all probes together. `probe_seconds` is its time to answer."""

    def __init__(
        self,
        engine: Engine,
        watchdog: Watchdog,
        swap_lock: SwapLock,
        follower: Follower | None,
        probe_seconds: float,
    ) -> None:
        self.draining = False
        self._engine = engine
        self._watchdog = watchdog
        self._swap_lock = swap_lock
        self._follower = follower
        self._probe_seconds = probe_seconds
        self._asked = 0.0
        self._probe: asyncio.Task[None] | None = None

    def check_open(self) -> None:
        """Raises EngineDead once the engine has died, EngineHangs while it hangs, NotReady while the service drains."""
        if self._engine.dead():
            raise EngineDead("The engine is dead; the service is about to restart.")
        if self.draining:
            raise NotReady("The service is shutting down.")
        self._watchdog.check()

    async def check(self) -> None:
        """Raises as `check_open`; NotReady if the engine answers late or with other weights;
        NotFollowing if the store's active version cannot be loaded.
        """
        try:
            self.check_open()
            await asyncio.shield(self._shared())
            if self._follower and (failure := self._follower.failure):
                raise NotFollowing(
                    f"The active version cannot be loaded; the previous version still answers: {failure}"
                )
        except ProblemError:
            metrics.ready.set(0)
            raise
        metrics.ready.set(1)

    async def report(self) -> None:
        """Keeps `iqa_ready` up to date even if nobody probes. Never ends."""
        while True:
            with contextlib.suppress(ProblemError):
                await self.check()
            await asyncio.sleep(REPORT_SECONDS)

    def _shared(self) -> asyncio.Task[None]:
        """The running probe, or the last one while it is fresh."""
        stale = self._probe is None or (self._probe.done() and monotonic() - self._asked > SHARED_SECONDS)
        if stale:
            self._asked = monotonic()
            self._probe = asyncio.create_task(self._ask())
        assert self._probe
        return self._probe

    async def _ask(self) -> None:
        lock = self._swap_lock
        serving, open_before = lock.version, lock.is_open
        try:
            version = await asyncio.wait_for(self._engine.probe(), self._probe_seconds)
        except TimeoutError:
            raise NotReady("The engine does not answer.") from None
        undisturbed = open_before and lock.is_open and lock.version == serving
        if undisturbed and version != serving.id:
            raise NotReady("The engine holds other weights than those that serve.")
