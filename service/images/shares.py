"""Fair shares of what requests compete for: turns of the decode workers and of the engine, and memory for pixels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from service.errors import InvalidRequest


class Queue:
    """One request's place among the others."""

    def __init__(self) -> None:
        self.turns = 0
        self.waiting: list[asyncio.Future[None]] = []
        self.ahead: dict[Any, Any] = {}
        """What is prepared for a question that is asked later."""


preparing: ContextVar[Queue | None] = ContextVar("preparing", default=None)
"""The running request's place where pictures are prepared for the model; all tasks of the request share it."""


class Turns:
    """Grants `slots` turns at a time. The request that had the fewest turns goes first, so none waits for a batch."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._queues: dict[Queue, None] = {}

    @asynccontextmanager
    async def turn(self, queue: Queue) -> AsyncIterator[None]:
        """Waits for a turn, and holds it until the block ends."""
        granted = asyncio.get_running_loop().create_future()
        queue.waiting.append(granted)
        self._queues[queue] = None
        self._grant()
        try:
            await granted
            yield
        finally:
            if granted.cancelled():
                self._forget(queue, granted)
            else:
                self._free += 1
                self._grant()

    def _grant(self) -> None:
        while self._free and self._queues:
            queue = min(self._queues, key=lambda queue: queue.turns)  # the first of those with the fewest
            granted = queue.waiting[0]
            self._forget(queue, granted)
            if not granted.done():  # else given up a moment ago
                queue.turns += 1
                self._free -= 1
                granted.set_result(None)

    def _forget(self, queue: Queue, granted: asyncio.Future[None]) -> None:
        if granted in queue.waiting:
            queue.waiting.remove(granted)
        if not queue.waiting:
            self._queues.pop(queue, None)


class Memory:
    """Lends bytes. A quarter is for requests that need no more than that, so none of them waits for a large one.

    Within its part no request is overtaken, and none waits while it holds a share.
    """

    def __init__(self, limit: int) -> None:
        self._small = _Lane(limit // 4)
        self._large = _Lane(limit - limit // 4)

    @property
    def largest(self) -> int:
        """The most that one request can get."""
        return self._large.limit

    @asynccontextmanager
    async def reserve(self, size: int, for_trainer: bool = False) -> AsyncIterator[None]:
        """Waits until `size` bytes are free, and holds them until the block ends. The quarter is not for the trainer.

        Never reserve twice in one request. Raises InvalidRequest if `size` can never be had.
        """
        if size > self.largest:
            raise InvalidRequest(
                f"The request's images have {size / 2**20:.0f} MiB of pixels in all; this service takes "
                f"{self.largest / 2**20:.0f} MiB at once. Send fewer of them, or smaller ones."
            )
        is_small = size <= self._small.limit and not for_trainer
        async with (self._small if is_small else self._large).reserve(size):
            yield


class _Lane:
    """A budget that is lent in the order of the requests."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._free = limit
        self._turn = asyncio.Lock()
        self._returned = asyncio.Event()

    @asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[None]:
        async with self._turn:
            while self._free < size:
                self._returned.clear()
                await self._returned.wait()
            self._free -= size
        try:
            yield
        finally:
            self._free += size
            self._returned.set()
