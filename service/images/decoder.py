"""Pictures from wherever a request has them, decoded off the event loop within a memory budget."""

from __future__ import annotations

import asyncio
import hashlib
import weakref
from concurrent.futures import ThreadPoolExecutor
from threading import Condition

from PIL import Image

from service.errors import TooBusy
from service.images.picture import Limits, Picture, decode, file_bytes
from service.images.remote import Remote, is_url

_FETCHES = 16
_PATIENCE_SECONDS = 5.0


class Decoder:
    """Decodes in threads of its own: a request that is given up frees its thread only when that is done with it.

    At most `threads` pictures at a time, and all that live have at most `memory` bytes of pixels.
    """

    def __init__(self, limits: Limits, threads: int, memory: int, remote: Remote) -> None:
        self.formats = limits.formats
        self._limits = limits
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decoder")
        self._memory = _Memory(memory)
        self._remote = remote
        self._fetches = asyncio.Semaphore(_FETCHES)

    async def open(self, source: bytes | str) -> Picture:
        """The picture in a file's bytes, in their base64 text or data: URL, or at an https: URL; not decoded yet.

        Raises InvalidImage if the text is no base64; UrlRefused and UrlFailed.
        """
        if is_url(source):
            async with self._fetches:
                source = await self._remote.fetch(source)
        data, digest = await asyncio.to_thread(self._read, source)
        return Picture(digest, lambda: self._decode(data))

    async def __call__(self, source: bytes | str) -> Image.Image:
        """The same picture as RGB. Raises as `open`; InvalidImage; TooBusy if there is no memory for it now."""
        picture = await self.open(source)
        return await picture.pixels()

    def _read(self, source: bytes | str) -> tuple[bytes, str]:
        data = file_bytes(source, self._limits)
        return data, hashlib.sha256(data).hexdigest()

    async def _decode(self, data: bytes) -> Image.Image:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._work, data)

    def _work(self, data: bytes) -> Image.Image:
        claimed = 0

        def claim(size: int) -> None:
            nonlocal claimed
            self._memory.take(size)
            claimed = size

        try:
            picture = decode(data, self._limits, claim)
        except BaseException:
            self._memory.give_back(claimed)
            raise
        weakref.finalize(picture, self._memory.give_back, claimed)
        return picture


class _Memory:
    """Bytes that decoded pictures have together, counted until the last one who holds a picture lets it go."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        # Its lock is reentrant: a picture may be let go, by the garbage collector, in the midst of `take`.
        self._changed = Condition()

    def take(self, size: int) -> None:
        """Waits a while for others to let go; not for ever, for they may be waiting too. Raises TooBusy."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._taken + size <= self._limit, _PATIENCE_SECONDS):
                raise TooBusy("The service has no memory for another picture now; try again.")
            self._taken += size

    def give_back(self, size: int) -> None:
        with self._changed:
            self._taken -= size
            self._changed.notify_all()
