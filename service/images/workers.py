"""Processes that read and decode image files, so that a hostile one can be ended at its deadline.

Files and pixels travel in anonymous memory that both sides map, not through pipes. It needs no room in /dev/shm, and it
goes with the service, even after a SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import io
import mmap
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TaskTimeout
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pebble import ProcessExpired, ProcessPool
from PIL import Image

from service.concurrency import file_work
from service.errors import InvalidImage
from service.images.picture import Limits, decode, from_text, read_size, take_heif
from service.processes import end_with

GRACE_SECONDS = 0.5
"""A decode whose request is given up may still end within this time: starting a new process costs more."""

AT_ONCE_PIXELS = 1024 * 1024
"""Pictures up to this size may be decoded when their header is read, before memory is reserved for them."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 32 * 2**20
"""Memory that a process keeps: a third of the time at a megapixel would go into page faults."""

_TRIM_SECONDS = 5.0

T = TypeVar("T")


class Address(NamedTuple):
    """A block, for a worker to open. The inode tells it from a later block with the same path."""

    path: str
    inode: int

    def open(self) -> io.FileIO:
        """Opens the block. Raises OSError if it is closed."""
        file = io.FileIO(os.open(self.path, os.O_RDWR), "r+")
        if os.fstat(file.fileno()).st_ino != self.inode:
            file.close()
            raise FileNotFoundError(self.path)
        return file


class Block:
    """Anonymous memory that workers can open too. It is freed once everyone has closed it."""

    def __init__(self, content: bytes = b"") -> None:
        """Raises OSError."""
        self._file = io.FileIO(os.memfd_create("evoquality"), "r+")
        _overwrite(self._file, content)
        descriptor = self._file.fileno()
        self.address = Address(f"/proc/{_own_process()}/fd/{descriptor}", os.fstat(descriptor).st_ino)

    def image(self, width: int, height: int) -> Image.Image:
        """A copy of the pixels as an RGB image."""
        image = Image.new("RGB", (width, height), None)  # not filled: that would hold the interpreter for every pixel
        with mmap.mmap(self._file.fileno(), 0, prot=mmap.PROT_READ) as pixels, memoryview(pixels) as view:
            image.frombytes(view[: width * height * 3])
        return image

    def content(self) -> bytes:
        """A copy of what it holds."""
        return os.pread(self._file.fileno(), os.fstat(self._file.fileno()).st_size, 0)

    def close(self) -> None:
        """Closes this side of the block."""
        self._file.close()


@cache
def _own_process() -> str:
    """The service's process in /proc: unlike getpid, right in a PID namespace without a /proc of its own."""
    return os.readlink("/proc/self")


class Opened(NamedTuple):
    """An image file that was read: its digest (sha256), and the size of its picture in pixels."""

    digest: str
    width: int
    height: int
    decoded: bool


class Workers:
    """A pool of `count` processes. A task that takes longer than `seconds` ends with its process."""

    def __init__(self, count: int, heif: bool) -> None:
        self.count = count
        self._heif = heif
        self._pool = self._started()
        self._starting = asyncio.Lock()
        _own_process()  # the event loop reads no files

    async def run(self, function: Callable[..., T], *arguments: Any, seconds: float) -> T:
        """The result of a call in one of the processes. Raises what the call raises; InvalidImage if it was ended.

        A call whose process ends is tried again: it may have ended for the call before, which was given up too late.
        """
        for _ in range(2):
            with contextlib.suppress(ProcessExpired, BrokenProcessPool, MemoryError):
                try:
                    return await asyncio.wrap_future(await self._schedule(function, arguments, seconds))
                except TaskTimeout:
                    raise InvalidImage(f"The image takes more than {seconds:g} s to decode.") from None
        raise InvalidImage("The image could not be decoded within the limits of this service.")

    async def _schedule(self, function: Callable[..., T], arguments: Sequence[Any], seconds: float) -> Future[T]:
        pool = self._pool
        try:
            return pool.schedule(function, arguments, timeout=seconds)
        except RuntimeError:  # the pool broke: all of its processes were killed from outside
            async with self._starting:
                if self._pool is pool:
                    self._pool = await file_work(self._started)
            return self._pool.schedule(function, arguments, timeout=seconds)

    def _started(self) -> ProcessPool:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["service.cli", __name__])  # a new process imports nothing
        _start_forkserver()
        pool = ProcessPool(self.count, initializer=_prepare, initargs=[os.getpid(), self._heif], context=context)
        for _ in range(self.count):
            pool.schedule(_nothing)
        return pool


def _start_forkserver() -> None:
    """Starts it with its imports safe from the current folder, which may hold a `service` of the user's own."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


@cache
def workers(count: int, heif: bool) -> Workers:
    """The processes of this service, started at the first call."""
    return Workers(count, heif)


def read(file: Address, is_text: bool, pixels: Address, limits: Limits, at_once: int) -> Opened:
    """Checks the header of a file, and decodes a picture of up to `at_once` pixels. Raises InvalidImage.

    Base64 text and data: URLs are replaced by the bytes of their file.
    """
    with file.open() as source, pixels.open() as target:
        data = source.readall()
        if is_text:
            data = from_text(data.decode("ascii", "replace"), limits)
            _overwrite(source, data)
        width, height = read_size(data, limits)
        decoded = width * height <= at_once
        if decoded:
            width, height = _write_pixels(data, target, limits)
        return Opened(hashlib.sha256(data).hexdigest(), width, height, decoded)


def write_pixels(file: Address, pixels: Address, limits: Limits) -> tuple[int, int]:
    """Decodes a file into a block of RGB pixels. Returns the width and height of the upright picture.

    Raises InvalidImage.
    """
    with file.open() as source, pixels.open() as target:
        return _write_pixels(source.readall(), target, limits)


def _write_pixels(data: bytes, target: io.FileIO, limits: Limits) -> tuple[int, int]:
    image = decode(data, limits)
    _write(target, image.tobytes())
    return image.size


def _overwrite(file: io.FileIO, content: bytes) -> None:
    file.truncate(0)
    _write(file, content)


def _write(file: io.FileIO, content: bytes) -> None:
    """Writes from the beginning. What the file held behind it stays: cut off, its memory would have to come anew."""
    file.seek(0)
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


def _prepare(service: int, heif: bool) -> None:
    """Makes a process end with the service, go first when memory runs out, and keep memory between pictures."""
    end_with(service)
    keep_freed(_KEPT_BYTES)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if heif:
        take_heif()


def keep_freed(size: int) -> None:
    """Makes this process give freed memory back at once where a block is larger than `size` bytes, or as much is free.

    Without this, glibc raises its limits as it goes, and the heap of every thread keeps the pixels it ever held.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, size)
    libc.mallopt(_M_TRIM_THRESHOLD, size)


async def give_back_freed() -> None:
    """Gives freed memory between blocks in use back to the system too, every few seconds. Never ends."""
    libc = ctypes.CDLL(None)
    while True:
        await asyncio.to_thread(libc.malloc_trim, 0)
        await asyncio.sleep(_TRIM_SECONDS)


def _nothing() -> None:
    """Starts the pool."""
