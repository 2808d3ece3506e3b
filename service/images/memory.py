"""A budget of bytes that requests share, each of which takes its whole share before it begins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.errors import InvalidRequest


class Memory:
    """Lends bytes in the order in which they are asked for: no request is overtaken, none waits holding a part."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = limit
        self._turn = asyncio.Lock()
        self._given_back = asyncio.Event()

    @asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[None]:
        """Waits until there are `size` bytes; they are free again when the block ends.

        Never reserve twice in one request. Raises InvalidRequest if there are never so many.
        """
        if size > self._limit:
            raise InvalidRequest(
                f"The request's images have {size // 2**20} MiB of pixels in all; this service takes "
                f"{self._limit // 2**20} MiB at once. Send fewer of them, or smaller ones."
            )
        async with self._turn:
            while self._free < size:
                self._given_back.clear()
                await self._given_back.wait()
            self._free -= size
        try:
            yield
        finally:
            self._free += size
            self._given_back.set()
