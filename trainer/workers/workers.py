"""The replicas of the service as the trainer's stages use them: blocking calls, interruptible by a signal."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from anyio.from_thread import start_blocking_portal

from evoquality.contract import InfoResponse, RolloutRequest, RolloutResponse, SwapResponse
from service.versions.store import VersionStore
from trainer.workers.spread import AsyncWorkers

T = TypeVar("T")


class Workers:
    """The blocking side, with the loop of `asynchronous` in a thread of its own.

    A call that is interrupted in the main thread is cancelled when the block ends, with the request in flight.
    """

    def __init__(
        self,
        urls: Sequence[str],
        key: str,
        store: VersionStore,
        patience: float,
        say: Callable[[str], None],
        *,
        overwritten: bool = False,
    ) -> None:
        """`overwritten`: they are rollout engines, whose weights are this trainer's to replace."""
        self.asynchronous = AsyncWorkers(urls, key, store, patience, say, overwritten=overwritten)

    def call(self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """Runs a coroutine function on the workers' loop and waits for it."""
        return self._portal.call(function, *arguments)

    def told(self) -> dict[str, InfoResponse]:
        """See `AsyncWorkers.told`."""
        return self.call(self.asynchronous.told)

    def info(self) -> InfoResponse:
        """See `AsyncWorkers.info`."""
        return self.call(self.asynchronous.info)

    def rollouts(self, request: RolloutRequest) -> RolloutResponse:
        """See `AsyncWorkers.rollouts`."""
        return self.call(self.asynchronous.rollouts, request)

    def load_adapter(self, name: str) -> None:
        """See `AsyncWorkers.load_adapter`."""
        self.call(self.asynchronous.load_adapter, name)

    def unload_adapter(self, name: str) -> None:
        """See `AsyncWorkers.unload_adapter`."""
        self.call(self.asynchronous.unload_adapter, name)

    def remove_adapter(self, own_name: str) -> None:
        """See `AsyncWorkers.remove_adapter`."""
        self.call(self.asynchronous.remove_adapter, own_name)

    def promote(self, version: str, instead_of: str) -> tuple[SwapResponse, list[str]]:
        """See `AsyncWorkers.promote`."""
        return self.call(self.asynchronous.promote, version, instead_of)

    def roll_back(self, version: str, instead_of: str) -> list[str]:
        """See `AsyncWorkers.roll_back`."""
        return self.call(self.asynchronous.roll_back, version, instead_of)

    def begin_with(self, version: str) -> None:
        """See `AsyncWorkers.begin_with`."""
        self.call(self.asynchronous.begin_with, version)

    def __enter__(self) -> Self:
        self._running = start_blocking_portal(name="workers")
        self._portal = self._running.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.call(self.asynchronous.close)
        self._running.__exit__(kind, error, trace)
