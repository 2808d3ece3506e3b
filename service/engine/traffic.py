"""Users go first: how many of the trainer's prompts the engine may have beside theirs.

vLLM's priorities order what waits. What already runs is in the way too: one step that reads 64 prompts keeps a
user waiting for all of them. So while users are being answered only a few prompts of rollouts are let in.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager


class Traffic:
    """Counts both, on one event loop. `beside_users`: prompts of rollouts at the same time while users are there."""

    def __init__(self, beside_users: int) -> None:
        self._beside_users = beside_users
        self._users = 0
        self._rollouts = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @contextmanager
    def user(self) -> Iterator[None]:
        """A user's request, from the gate to its answer."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._admit()

    @asynccontextmanager
    async def rollout(self) -> AsyncIterator[None]:
        """A prompt of rollouts: waits its turn while users are there."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._admit()
        try:
            await turn
        except BaseException:
            self._leave(turn)
            raise
        try:
            yield
        finally:
            self._rollouts -= 1
            self._admit()

    def _admit(self) -> None:
        while self._waiting and (not self._users or self._rollouts < self._beside_users):
            turn = self._waiting.popleft()
            if not turn.done():
                self._rollouts += 1
                turn.set_result(None)

    def _leave(self, turn: asyncio.Future[None]) -> None:
        """One that was cancelled while it waited may have been let in at the same moment."""
        if turn.done() and not turn.cancelled():
            self._rollouts -= 1
            self._admit()
