"""Holds every test of the service to this: nothing blocks the event loop.

Blocking calls (files, locks, sleeping) on the loop raise where they happen. What computes on it for too long is
measured by the time of its thread, so that a busy machine accuses nobody.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from blockbuster import blockbuster_ctx


def _computing() -> float:
    """Time of the thread for a fixed computation: 22 ms on the machine on which 100 ms are kept with room to spare."""
    begin = time.thread_time()
    sum(number * number for number in range(500_000))
    return time.thread_time() - begin


LONGEST_SECONDS = max(0.1, 7 * min(_computing() for _ in range(3)))
"""A tenth of a second, or more on a slower processor or a shared one."""


def elsewhere(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of what a service does before its loop runs, and a test on one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function, *arguments).result()


@contextmanager
def never_blocked() -> Iterator[None]:
    """Fails if the service blocks a loop, or a callback computes for more than `LONGEST_SECONDS`."""
    slow: list[str] = []
    collects = gc.isenabled()
    gc.disable()  # this process holds more than a service does
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        begin = time.thread_time()
        run(handle)
        seconds = time.thread_time() - begin
        if seconds > LONGEST_SECONDS:
            slow.append(f"{seconds:.3f} s: {handle!r}")

    asyncio.Handle._run = timed  # type: ignore[assignment]
    try:
        with blockbuster_ctx("service"):
            yield
    finally:
        asyncio.Handle._run = run
        if collects:
            gc.enable()
    assert not slow, slow
