"""Finds an engine that hangs: alive for the system, but without any sign of life."""

from __future__ import annotations

import asyncio
import logging

from service.engine.protocol import Engine
from service.errors import EngineDead, EngineHangs

_TICK_SECONDS = 1.0
_BUSY_WEIGHT = 0.1
"""Of a tick in which a silent engine computes or reads: a long prefill, a reload, a slow machine."""

log = logging.getLogger(__name__)


class Watchdog:
    """Asks the engine a small question at a time, which it answers between two steps.

    Silence is counted in ticks of this process, so that a machine that sleeps, or stops both, accuses nobody. After
    `hang_seconds` of it the engine is known to hang; `exit_seconds` later the process must end.
    """

    def __init__(self, engine: Engine, hang_seconds: float, exit_seconds: float) -> None:
        self._engine = engine
        self._hang_seconds = hang_seconds
        self._last = hang_seconds + exit_seconds
        self._tick = min(_TICK_SECONDS, hang_seconds / 4, exit_seconds / 4)
        self._silent = 0.0
        self._hanging = False
        self._running: set[asyncio.Future[None]] = set()

    @property
    def must_end(self) -> bool:
        """True once the process must be restarted."""
        return self._silent >= self._last

    def check(self) -> None:
        """Raises EngineHangs while the engine is known to hang."""
        if self._hanging:
            raise EngineHangs("The engine does not answer; the service restarts if that lasts.")

    def hang(self) -> asyncio.Future[None]:
        """A future that is done once the engine is known to hang. Cancel it when nobody waits any more."""
        future = asyncio.get_running_loop().create_future()
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    async def watch(self) -> None:
        """Watches until the process must end. Begin after the start, which may take minutes."""
        question = asyncio.create_task(self._engine.probe())
        try:
            while not self.must_end:
                await asyncio.sleep(self._tick)
                if question.done():
                    self._answered(question)
                    question = asyncio.create_task(self._engine.probe())
                else:
                    busy = await asyncio.to_thread(self._engine.busy)
                    self._silent += self._tick * (_BUSY_WEIGHT if busy else 1)
                    self._judge()
        finally:
            question.cancel()

    def _answered(self, question: asyncio.Task[str]) -> None:
        if question.cancelled() or isinstance(question.exception(), EngineDead):
            return  # ends the process elsewhere
        if self._hanging:
            log.warning("the engine answers again, after %.0f s", self._silent)
        self._silent = 0.0
        self._hanging = False

    def _judge(self) -> None:
        if self._silent >= self._hang_seconds and not self._hanging:
            self._hanging = True
            for future in self._running:
                if not future.done():
                    future.set_result(None)
            log.critical(
                "the engine hangs: no sign of life for %.0f s. Requests get 503, and the process ends with exit code 3 "
                "in %.0f s unless it answers. Look at the VLLM processes: stopped, or waiting for a GPU or a volume?",
                self._silent,
                self._last - self._silent,
            )
