"""Waiting for a service that does not answer: said while it lasts, and given up in the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, wait_random_exponential

from trainer.errors import Unreachable

T = TypeVar("T")

_LONGEST_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Patience:
    """For how many seconds to wait, and whom to tell."""

    seconds: float
    say: Callable[[str], None]

    async def of(self, call: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """What the call returns, which is repeated while it raises Unreachable. Raises Unreachable in the end."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unreachable),
            stop=stop_after_delay(self.seconds),
            wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT_S),
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            return await retrying(call, *arguments)
        except Unreachable as reasons:
            raise Unreachable(f"no replica of the service answered for {self.seconds:.0f} s ({reasons})") from None

    def _tell(self, state: RetryCallState) -> None:
        why = state.outcome.exception() if state.outcome else None
        waited = state.seconds_since_start or 0.0
        self.say(f"service unreachable, waiting ({waited:.0f} s of {self.seconds:.0f}): {why}")
