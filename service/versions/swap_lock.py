"""A readers-writer lock over the serving version: many requests share it, or one swap has it exclusively.

vLLM queues requests that arrive during a pause, and loses some of them when its caches are cleared. Behind this lock
no request reaches the engine during a swap; requests that arrive meanwhile wait here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from evoquality.contract import VersionInfo
from service.errors import DrainTimeout, Swapping
from service.observability.logs import request_id


class SwapLock:
    """Belongs to one event loop. `version` changes only while a swap has the lock."""

    def __init__(self, version: VersionInfo) -> None:
        self.version = version
        self._open = asyncio.Event()
        self._open.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._readers = 0
        self._giving_way: set[asyncio.Timeout] = set()
        self._waiting: set[str | None] = set()

    @property
    def is_open(self) -> bool:
        """True if a new request passes without waiting."""
        return self._open.is_set()

    def blocks(self, request: str) -> bool:
        """True if the request with this id waits for a swap to end."""
        return request in self._waiting

    async def wait_until_open(self) -> None:
        """Waits for a running swap."""
        request = request_id.get()
        self._waiting.add(request)
        try:
            while not self._open.is_set():  # the next swap may have begun before a waiter wakes
                await self._open.wait()
        finally:
            self._waiting.discard(request)

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[VersionInfo]:
        """Waits for a running swap. The version stays the same until the block ends.

        Never nest it in one request: a swap between the two would wait for ever.
        """
        await self.wait_until_open()
        self._readers += 1
        self._idle.clear()
        try:
            yield self.version
        finally:
            self._readers -= 1
            if self._readers == 0:
                self._idle.set()

    @asynccontextmanager
    async def giving_way(self) -> AsyncIterator[VersionInfo]:
        """As `shared`, for the trainer, which asks again: a swap cancels the block, so that users do not wait for it.

        Raises Swapping then.
        """
        async with self.shared() as version:
            giving_way = asyncio.timeout(None)
            try:
                async with giving_way:
                    self._giving_way.add(giving_way)
                    yield version
            except TimeoutError:
                if giving_way.expired():
                    raise Swapping("A swap goes first; ask again once it is done.") from None
                raise
            finally:
                self._giving_way.discard(giving_way)

    @asynccontextmanager
    async def exclusive(self, drain_seconds: float) -> AsyncIterator[None]:
        """Makes new requests wait until the block ends, cancels the trainer's, and waits for the users'.

        The caller runs one swap at a time. Raises DrainTimeout if requests run longer than `drain_seconds`.
        """
        self._open.clear()
        for request in self._giving_way:
            request.reschedule(asyncio.get_running_loop().time())
        try:
            await self._drain(drain_seconds)
            yield
        finally:
            self._open.set()

    async def _drain(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            raise DrainTimeout("Running requests did not end in time; the version is unchanged.") from None
