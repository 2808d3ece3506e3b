"""What each key has asked for lately, against its limits."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from service.api.keys import Key
from service.errors import InvalidRequest, RateLimited

WINDOW_SECONDS = 60


class Rates:
    """A moving window of a minute and a count of running requests for every key, in memory: each replica its own."""

    def __init__(self) -> None:
        self._storage = MemoryStorage()
        self._window = MovingWindowRateLimiter(self._storage)
        self._running: Counter[str] = Counter()

    async def charge(self, key: Key, count: int) -> None:
        """Counts `count` requests of a key, all or none.

        Raises RateLimited; InvalidRequest if they are more than ever pass at once.
        """
        limit = key.requests_per_minute
        if limit is None:
            return
        if count > limit:
            raise InvalidRequest(f"The request counts {count}; this key has {limit} a minute. Send fewer images.")
        item = RateLimitItemPerMinute(limit)
        if not await self._window.hit(item, key.name, cost=count):
            in_the_way = self._storage.events[item.key_for(key.name)][limit - count]
            wait = math.ceil(in_the_way.atime + WINDOW_SECONDS - time.time())
            raise RateLimited(f"This key has {limit} requests a minute.", max(1, wait))

    @contextmanager
    def running(self, key: Key) -> Iterator[None]:
        """Counts a request until the block ends. Raises RateLimited beyond the key's `max_in_flight`."""
        if key.max_in_flight is not None and self._running[key.name] >= key.max_in_flight:
            raise RateLimited(f"This key has {key.max_in_flight} requests at the same time.", 1)
        self._running[key.name] += 1
        try:
            yield
        finally:
            self._running[key.name] -= 1
