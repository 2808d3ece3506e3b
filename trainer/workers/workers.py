"""The replicas of the service as the trainer's stages use them: blocking calls that a signal interrupts."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from anyio.from_thread import start_blocking_portal

from service.versions.store import VersionStore
from trainer.workers.spread import AsyncWorkers

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[AsyncWorkers, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Workers, P], T]:
    @wraps(method)
    def call(self: Workers, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.call(partial(method, self.asynchronous, *args, **kwargs))

    return call


class Workers:
    """The blocking side; the event loop of `asynchronous` runs in a thread of its own.

    A call that is interrupted in the main thread is cancelled when the block ends, with the request in flight.
    """

    replica_info = _blocking(AsyncWorkers.replica_info)
    info = _blocking(AsyncWorkers.info)
    rollouts = _blocking(AsyncWorkers.rollouts)
    load_adapter = _blocking(AsyncWorkers.load_adapter)
    unload_adapter = _blocking(AsyncWorkers.unload_adapter)
    remove_adapter = _blocking(AsyncWorkers.remove_adapter)
    promote = _blocking(AsyncWorkers.promote)
    roll_back = _blocking(AsyncWorkers.roll_back)
    begin_with = _blocking(AsyncWorkers.begin_with)

    def __init__(
        self,
        urls: Sequence[str],
        key: str,
        store: VersionStore,
        patience: float,
        say: Callable[[str], None],
        *,
        overwritten: bool = False,
        max_answer_tokens: int | None = None,
    ) -> None:
        """`overwritten`: they are rollout engines, whose weights this trainer may replace. As `AsyncWorkers` else."""
        self.asynchronous = AsyncWorkers(
            urls, key, store, patience, say, overwritten=overwritten, max_answer_tokens=max_answer_tokens
        )

    def call(self, function: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
        """Runs a coroutine function on the workers' event loop and waits for it."""
        return self._portal.call(function, *arguments)

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
