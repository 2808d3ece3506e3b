"""Concurrent calls that leave nothing running behind them, and blocking ones in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")

_FILE_THREADS = ThreadPoolExecutor(8, "files")


async def file_work(function: Callable[..., T], *arguments: Any) -> T:
    """The result of a call that reads, writes or locks files. Raises as the call does.

    It runs in a thread of its own kind: a volume that hangs must stop neither the event loop nor the threads that
    copy pictures.
    """
    call = copy_context().run
    return await asyncio.get_running_loop().run_in_executor(_FILE_THREADS, call, function, *arguments)


async def gather(*calls: Coroutine[Any, Any, T]) -> list[T]:
    """Runs the calls concurrently and returns their results in order.

    Unlike `asyncio.gather`, the first failure cancels the other calls and waits for them, then is raised itself.
    """
    tasks: list[asyncio.Task[T]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(call) for call in calls]
        return [task.result() for task in tasks]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    finally:
        tasks.clear()  # breaks the circle task, exception, traceback, this frame: it would keep the pictures alive
