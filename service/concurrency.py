"""Concurrent calls that leave nothing running behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


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
