"""The service's own admission gate: every request holds the version it began with until its last answer.

vLLM queues requests that arrive during a pause, and loses some when caches are cleared under them. Behind
this gate no request reaches the engine during a swap; those that arrive wait here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.contract import VersionInfo
from service.errors import DrainTimeout
from service.observability.logs import request_id


class VersionGate:
    """Many holders or one swap, on one event loop."""

    def __init__(self, version: VersionInfo) -> None:
        self.version = version
        self._open = asyncio.Event()
        self._open.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._holders = 0
        self._kept_out: set[str | None] = set()

    @property
    def is_open(self) -> bool:
        """Whether new requests pass without waiting."""
        return self._open.is_set()

    def kept_out(self, request: str) -> bool:
        """Whether the request of this id waits for the gate to open."""
        return request in self._kept_out

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[VersionInfo]:
        """Waits until the gate is open; the version stays the same until the block ends."""
        await self._opened()
        self._holders += 1
        self._idle.clear()
        try:
            yield self.version
        finally:
            self._holders -= 1
            if self._holders == 0:
                self._idle.set()

    @asynccontextmanager
    async def closed(self, drain_seconds: float) -> AsyncIterator[None]:
        """Lets nobody new in, waits for the holders, and opens again when the block ends.

        Only one at a time: the caller locks. Raises DrainTimeout if holders stay longer.
        """
        self._open.clear()
        try:
            await self._drain(drain_seconds)
            yield
        finally:
            self._open.set()

    async def _opened(self) -> None:
        request = request_id.get()
        self._kept_out.add(request)
        try:
            while not self._open.is_set():  # a waiter may wake after the gate has closed again
                await self._open.wait()
        finally:
            self._kept_out.discard(request)

    async def _drain(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            raise DrainTimeout("Running requests did not end in time; the version is unchanged.") from None
