"""Limits the trainer's sequences in the engine while users are being answered.

vLLM's priorities order waiting requests only. Running ones delay users too: they hold the engine's places, and each
makes a step longer. So while users are being answered, the trainer's answers take only a part of the places.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager


class Traffic:
    """Counts users, and the answers that the engine samples for the trainer, on one event loop.

    `beside_users` is the limit of these answers while users are there. A question that is asked more often than that
    enters alone.
    """

    def __init__(self, beside_users: int) -> None:
        self._beside_users = beside_users
        self._users = 0
        self._sequences = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    @contextmanager
    def user(self) -> Iterator[None]:
        """Counts a user's request until the block ends."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._admit()

    @asynccontextmanager
    async def rollout(self, sequences: int = 1) -> AsyncIterator[None]:
        """Waits for a turn of a question that is answered `sequences` times, and holds it until the block ends."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, sequences))
        self._admit()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._sequences -= sequences
            self._admit()

    def _admit(self) -> None:
        while self._waiting:
            turn, sequences = self._waiting[0]
            if not turn.done() and not self._has_room(sequences):
                break
            self._waiting.popleft()
            if not turn.done():
                self._sequences += sequences
                turn.set_result(None)

    def _has_room(self, sequences: int) -> bool:
        return not self._users or not self._sequences or self._sequences + sequences <= self._beside_users
