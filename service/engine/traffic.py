"""Limits the trainer's prompts in the engine while users are being answered.

vLLM's priorities order waiting requests only. Running ones delay users too: a step that reads 64 prompts keeps a user
waiting for all of them. So while users are being answered, only a few rollout prompts may enter.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager


class Traffic:
    """Counts users and rollouts on one event loop. `beside_users`: rollout prompts at a time while users are there."""

    def __init__(self, beside_users: int) -> None:
        self._beside_users = beside_users
        self._users = 0
        self._rollouts = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

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
    async def rollout(self) -> AsyncIterator[None]:
        """Waits for a turn of a rollout prompt, and holds it until the block ends."""
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
        """Gives a turn back that was granted in the moment its request was cancelled."""
        if turn.done() and not turn.cancelled():
            self._rollouts -= 1
            self._admit()
