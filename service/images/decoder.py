"""Opens the pictures of a request and decodes them off the event loop, within a memory budget."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from PIL import Image

from service.concurrency import gather
from service.errors import InvalidRequest, ProblemError
from service.images.picture import Limits, Picture, decode, decoded_bytes, from_text
from service.images.remote import Remote, is_url

Source = bytes | str
"""A file's bytes, their base64 text or data: URL, or an https: URL."""

_FETCHES, _FETCHES_OF_A_REQUEST = 16, 4


class Decoder:
    """Decodes in its own threads; a request that is given up keeps its thread until the picture is decoded.

    Decodes up to `threads` pictures at a time. The pixels of all requests take up to `memory` bytes. A request reserves
    the memory for all of its pictures before the first is decoded, so no thread ever waits for memory.
    """

    def __init__(self, limits: Limits, threads: int, memory: int, remote: Remote) -> None:
        self.formats = limits.formats
        self._limits = limits
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decoder")
        self._memory = Memory(memory)
        self._remote = remote
        self._fetches = asyncio.Semaphore(_FETCHES)

    @asynccontextmanager
    async def opened(self, sources: Iterable[Source]) -> AsyncIterator[list[Picture]]:
        """Opens a request's pictures without decoding them, and reserves memory for their pixels until the block ends.

        Raises InvalidImage, UrlRefused and UrlFailed; InvalidRequest if they can never fit into the memory.
        """
        own = asyncio.Semaphore(_FETCHES_OF_A_REQUEST)
        pictures = await gather(*(self._open(source, own) for source in sources))
        async with self.room(pictures):
            yield pictures

    async def try_open(self, sources: Iterable[Source]) -> list[Picture | ProblemError]:
        """Opens a request's pictures without reserving memory. A picture that cannot be opened yields its error."""
        own = asyncio.Semaphore(_FETCHES_OF_A_REQUEST)
        return await gather(*(self._try_open(source, own) for source in sources))

    def room(self, pictures: Sequence[Picture]) -> AbstractAsyncContextManager[None]:
        """Reserves memory for the pixels of a request's pictures. Raises InvalidRequest if they can never fit."""
        return self._memory.reserve(sum(picture.bytes for picture in pictures))

    async def _try_open(self, source: Source, own: asyncio.Semaphore) -> Picture | ProblemError:
        try:
            return await self._open(source, own)
        except ProblemError as failure:
            return failure

    async def _open(self, source: Source, own: asyncio.Semaphore) -> Picture:
        if is_url(source):
            async with own, self._fetches:
                source = await self._remote.fetch(source)
        return await asyncio.to_thread(self._read, source)

    def _read(self, source: Source) -> Picture:
        data = from_text(source, self._limits) if isinstance(source, str) else source
        size = decoded_bytes(data, self._limits)
        return Picture(hashlib.sha256(data).hexdigest(), size, lambda: self._decode(data))

    async def _decode(self, data: bytes) -> Image.Image:
        return await asyncio.get_running_loop().run_in_executor(self._threads, decode, data, self._limits)


class Memory:
    """Lends bytes in the order of the requests: none is overtaken, and none waits while it holds a part."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = limit
        self._turn = asyncio.Lock()
        self._given_back = asyncio.Event()

    @asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[None]:
        """Waits until `size` bytes are free, and holds them until the block ends.

        Never reserve twice in one request. Raises InvalidRequest if `size` exceeds the budget.
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
