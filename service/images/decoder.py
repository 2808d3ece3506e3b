"""Opens and decodes the pictures of a request in processes, within its share of their time and of memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from PIL import ExifTags, Image

from service.concurrency import gather
from service.errors import ProblemError
from service.images.kept import KeptFiles
from service.images.picture import Limits
from service.images.remote import Remote, is_url
from service.images.shares import Memory, Queue, Turns, preparing
from service.images.workers import AT_ONCE_PIXELS, GRACE_SECONDS, Block, Opened, Workers, read, write_pixels
from service.observability.metrics import stage

Source = bytes | str
"""A file's bytes, their base64 text or data: URL, or an https: URL; from the trainer also a digest: `KeptFiles`."""

_FETCHES, _FETCHES_OF_A_REQUEST = 16, 4
_BYTES_A_PIXEL = 4
"""Of a decoded picture, since Pillow pads RGB."""
_SPARE_BLOCKS = 8
"""Kept for later pictures, of up to three megabytes each: half of the time to write pixels goes into new memory."""

T = TypeVar("T")


class Picture:
    """An image file of a request, known by its digest, decoded when its pixels are first asked for.

    It owns the pixels until it is closed. `bytes` is their size once decoded.
    """

    def __init__(self, digest: str, bytes: int, decode: Callable[[], Awaitable[Image.Image]]) -> None:
        self.digest = digest
        self.bytes = bytes
        self._decode = decode
        self._pixels: Image.Image | None = None
        self._closed = False

    async def pixels(self) -> Image.Image:
        """The picture in RGB, decoded once. Raises InvalidImage."""
        if self._pixels is None:
            with stage("decode"):
                self._pixels = await self._decode()
            # vLLM tells pictures apart by this, instead of hashing all pixels for every question.
            self._pixels.getexif()[ExifTags.Base.ImageID] = UUID(self.digest[:32])
            if self._closed:
                self._pixels.close()
        return self._pixels

    def close(self) -> None:
        """Frees the pixels, even if a traceback or a task still refers to them."""
        self._closed = True
        if self._pixels is not None:
            self._pixels.close()


class Decoder:
    """Opens pictures within `limits`. The pixels of all requests take up to `memory` bytes.

    Reading or decoding one picture may take `seconds`. `kept` holds the trainer's files.
    """

    def __init__(
        self, limits: Limits, workers: Workers, memory: int, seconds: float, remote: Remote, kept: KeptFiles
    ) -> None:
        self.formats = limits.formats
        self.limits = limits
        self.remote = remote
        self.kept = kept
        self.fetches = asyncio.Semaphore(_FETCHES)
        self._workers = workers
        self._turns = Turns(workers.count)
        self._memory = Memory(memory)
        self.room_ahead = memory // 8 // (AT_ONCE_PIXELS * _BYTES_A_PIXEL)
        self.spare: list[Block] = []
        self._seconds = seconds
        self._given_up: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def opened(self, sources: Iterable[Source], for_trainer: bool = False) -> AsyncIterator[list[Picture]]:
        """Opens a request's pictures and reserves memory for their pixels. The end of the block closes them.

        Raises InvalidImage, UrlRefused and UrlFailed; InvalidRequest if they can never fit into the memory;
        UnknownImages for the trainer.
        """
        if for_trainer:
            sources = self.kept.resolved(list(sources))
        request = _Request(self, for_trainer)
        try:
            pictures = await gather(*(request.open(source) for source in sources))
            async with self.room(pictures, for_trainer):
                yield pictures
        finally:
            request.close()

    @asynccontextmanager
    async def tried(self, sources: Iterable[Source]) -> AsyncIterator[list[Picture | ProblemError]]:
        """As `opened`, but a picture that cannot be opened is given as its error, and no memory is reserved yet."""
        request = _Request(self)
        try:
            yield await gather(*(request.try_open(source) for source in sources))
        finally:
            request.close()

    def room(self, pictures: Sequence[Picture], for_trainer: bool = False) -> AbstractAsyncContextManager[None]:
        """Reserves memory for the pixels of some pictures. Raises InvalidRequest if they can never fit."""
        return self._memory.reserve(sum(picture.bytes for picture in pictures), for_trainer)

    def slices(self, pictures: Sequence[Picture]) -> Iterator[Sequence[Picture]]:
        """Splits pictures, in order, into parts that leave memory for other requests."""
        part: list[Picture] = []
        for picture in pictures:
            if part and sum(one.bytes for one in [*part, picture]) > self._memory.largest // 2:
                yield part
                part = []
            part.append(picture)
        yield part

    async def run(self, queue: Queue, function: Callable[..., T], *arguments: Any) -> T:
        """The result of a call in a worker, in the request's turn. Raises as the call does; InvalidImage.

        If the caller is cancelled, a running call has a moment left to end; then its process is killed.
        """
        running = asyncio.Event()
        work = asyncio.create_task(self._run(queue, running, partial(self._workers.run, function, *arguments)))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._given_up.add(work)
            work.add_done_callback(self._forget)
            asyncio.get_running_loop().call_later(GRACE_SECONDS if running.is_set() else 0, work.cancel)
            raise

    async def _run(self, queue: Queue, running: asyncio.Event, call: Callable[..., Any]) -> Any:
        async with self._turns.turn(queue):
            running.set()
            return await call(seconds=self._seconds)

    def _forget(self, work: asyncio.Task[Any]) -> None:
        self._given_up.discard(work)
        if not work.cancelled():
            work.exception()  # nobody waits for it


class _Request:
    """Owns the files and the pixels of one request."""

    def __init__(self, decoder: Decoder, for_trainer: bool = False) -> None:
        self._decoder = decoder
        self._for_trainer = for_trainer
        self._queue = Queue()
        self._fetches = asyncio.Semaphore(_FETCHES_OF_A_REQUEST)
        self._owned: list[Block | Picture] = []
        self._ahead = 0
        preparing.set(Queue())

    async def try_open(self, source: Source) -> Picture | ProblemError:
        """The picture, or why it cannot be opened."""
        try:
            return await self.open(source)
        except ProblemError as failure:
            return failure.with_traceback(None)  # which would keep the file

    async def open(self, source: Source) -> Picture:
        """Reads a file's header. Raises InvalidImage, UrlRefused, UrlFailed."""
        if is_url(source):
            async with self._fetches, self._decoder.fetches:
                source = await self._decoder.remote.fetch(source)
        is_text = isinstance(source, str)
        file = await self._block(source.encode("ascii", "replace") if isinstance(source, str) else source)
        spare = self._decoder.spare
        self._owned.append(pixels := spare.pop() if spare else Block())
        opened = await self._read(file, is_text, pixels)
        if self._for_trainer:
            content = source if isinstance(source, bytes) else await asyncio.to_thread(file.content)
            self._decoder.kept.keep(opened.digest, content)
        size = opened.width, opened.height
        decode = partial(self._image, pixels, *size) if opened.decoded else partial(self._decode, file, pixels)
        picture = Picture(opened.digest, size[0] * size[1] * _BYTES_A_PIXEL, decode)
        self._owned.append(picture)
        return picture

    async def _read(self, file: Block, is_text: bool, pixels: Block) -> Opened:
        """Reads the header, and decodes a small picture at once while there is room for it until the request ends."""
        decoder = self._decoder
        at_once = min(1, decoder.room_ahead)
        decoder.room_ahead -= at_once
        self._ahead += at_once
        opened = await decoder.run(
            self._queue, read, file.address, is_text, pixels.address, decoder.limits, at_once * AT_ONCE_PIXELS
        )
        if not opened.decoded:
            decoder.room_ahead += at_once
            self._ahead -= at_once
        return opened

    async def _decode(self, file: Block, pixels: Block) -> Image.Image:
        width, height = await self._decoder.run(
            self._queue, write_pixels, file.address, pixels.address, self._decoder.limits
        )
        return await self._image(pixels, width, height)

    async def _image(self, pixels: Block, width: int, height: int) -> Image.Image:
        """Copies the pixels out of a block, which nobody writes to any more: another picture may have it."""
        image = await asyncio.to_thread(pixels.image, width, height)
        self._owned.remove(pixels)
        if width * height <= AT_ONCE_PIXELS and len(self._decoder.spare) < _SPARE_BLOCKS:
            self._decoder.spare.append(pixels)
        else:
            pixels.close()
        return image

    async def _block(self, content: bytes) -> Block:
        block = await asyncio.to_thread(Block, content)
        self._owned.append(block)
        return block

    def close(self) -> None:
        """Frees everything."""
        self._decoder.room_ahead += self._ahead
        while self._owned:
            self._owned.pop().close()
