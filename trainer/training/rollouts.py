"""A step's rollouts, sampled in a thread beside the update of the step before."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack

from pydantic import BaseModel

from evoquality.contract import RolloutResult
from trainer.training.served import Served


class SampledGroup(BaseModel):
    """The answers to each image of one step's group."""

    results: list[RolloutResult]
    seconds: float
    """How long sampling took."""
    mismatch: float = 0.0
    """How far engine and torch were apart on the first image, before the weights moved: `Updater.mismatch`."""


class Sampler:
    """Samples in a thread of its own. A context manager: it ends once nothing is being sampled any more, but at once
    after an error, as when the process shall end."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rollouts")

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown(wait=kind is None)

    def begin(
        self, serving: AbstractContextManager[Served], sample: Callable[[Served], list[RolloutResult]]
    ) -> Future[SampledGroup]:
        """Samples from the policy as it is now: it is handed over before this returns, and may change then."""
        began, handed_over = time.monotonic(), ExitStack()
        served = handed_over.enter_context(serving)

        def work() -> SampledGroup:
            with handed_over:
                results = sample(served)
            return SampledGroup(results=results, seconds=time.monotonic() - began)

        return self._thread.submit(work)
