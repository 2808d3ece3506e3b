"""Makes a replica follow the store's pointer: it swaps to the version that ACTIVE names after a random delay."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from time import monotonic

from tenacity import AsyncRetrying, RetryCallState, RetryError, wait_combine, wait_random_exponential

from service.concurrency import file_work
from service.configuration.settings import Settings
from service.errors import DrainTimeout, NotActive, ProblemError, UnknownVersion, UserError
from service.observability import metrics
from service.versions.store import VersionStore
from service.versions.swap import Swapper
from service.versions.swap_lock import SwapLock

_LONGEST_PAUSE_SECONDS = 120.0
"""Longest pause between attempts that cost nothing."""
_PAUSES = 10
"""Pauses last at least this many times as long as the attempts, each of which reads every file and may block users."""
_VISIBLE_SECONDS = 30.0
"""Time in which a shared volume may show the pointer before the version's files."""

log = logging.getLogger(__name__)


class Follower:
    """Reads the pointer every `follow_seconds` and has the swapper promote the version that it names.

    While the pointer cannot be read, its last value counts.
    """

    def __init__(self, store: VersionStore, swap_lock: SwapLock, swapper: Swapper, settings: Settings) -> None:
        self._store = store
        self._swap_lock = swap_lock
        self._swapper = swapper
        self._settings = settings
        self._named = swap_lock.version.id
        self._readable = True
        self._moved = asyncio.Event()
        self._failure: str | None = None
        self._level_at = monotonic()

    @property
    def failure(self) -> str | None:
        """The reason why the active version could not be loaded; None once it serves, and before the first attempt."""
        return None if self._named == self._swap_lock.version.id else self._failure

    @property
    def behind_seconds(self) -> float:
        """Seconds this replica has lagged behind the store's ACTIVE pointer; 0 when up to date."""
        seconds = monotonic() - self._level_at
        return seconds if seconds > 2 * self._settings.follow_seconds else 0.0

    async def follow(self) -> None:
        """Follows until it is cancelled. A service that does not follow only looks how far it is behind."""
        metrics.behind_seconds.set_function(lambda: self.behind_seconds)
        await self._read()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read_on())
            if self._settings.follow:
                group.create_task(self._keep_up())

    async def _read_on(self) -> None:
        while True:
            await asyncio.sleep(self._settings.follow_seconds)
            await self._read()

    async def _read(self) -> None:
        named = await file_work(self._pointer)
        if named is None:
            return
        if named != self._named:
            self._named = named
            self._moved.set()
            if not self._settings.follow and named != self._swap_lock.version.id:
                log.warning("somebody moved the store's pointer: it names %s, which does not serve here", named)
        if named == self._swap_lock.version.id:
            self._level_at = monotonic()

    def _pointer(self) -> str | None:
        """The version that the pointer names; None while it cannot be read, which is logged once."""
        try:
            active = self._store.active()
            if active is None:
                raise FileNotFoundError("it is gone")
        except (OSError, UserError) as error:
            if self._readable:
                log.warning("the store's pointer cannot be read: %s", error)
            self._readable = False
            return None
        self._readable = True
        return active.version

    async def _keep_up(self) -> None:
        spread = 0.0  # a replica that has just started keeps no users waiting
        while True:
            self._moved.clear()
            if self._named == self._swap_lock.version.id:
                await self._moved.wait()
            else:
                with suppress(RetryError):  # the pointer moved again
                    await self._catch_up(self._named, random.uniform(0, spread))
            spread = self._settings.follow_spread_seconds

    async def _catch_up(self, version: str, delay: float) -> None:
        """Promotes a version after `delay` seconds, with retries. Raises RetryError if the pointer moves."""
        self._failure = None
        log.info("the store's pointer names %s: swapping in %.0f s", version, delay)
        await self._rest(delay)
        retrying = AsyncRetrying(
            wait=wait_combine(wait_random_exponential(min=1, max=_LONGEST_PAUSE_SECONDS), _sparing),
            stop=lambda _: self._moved.is_set(),
            before_sleep=self._note,
            sleep=self._rest,
        )
        await retrying(self._swapper.promote, version)

    async def _rest(self, seconds: float) -> None:
        """Waits until the time is over or the pointer moves."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._moved.wait(), seconds)

    def _note(self, attempt: RetryCallState) -> None:
        """Keeps the reason of a failed attempt, except for failures that the next attempts may resolve."""
        assert attempt.outcome
        error = attempt.outcome.exception()
        if isinstance(error, NotActive | DrainTimeout):
            return
        if isinstance(error, UnknownVersion) and (attempt.seconds_since_start or 0) < _VISIBLE_SECONDS:
            return
        if not isinstance(error, ProblemError):
            log.error("the version could not be tried", exc_info=error)
        self._failure = error.detail if isinstance(error, ProblemError) else "its files could not be read"


def _sparing(attempt: RetryCallState) -> float:
    """Seconds of pause that the attempts so far still require."""
    tried = (attempt.seconds_since_start or 0) - attempt.idle_for
    return max(0.0, _PAUSES * tried - attempt.idle_for)
