"""A step's rollouts, sampled in a thread beside the update of the step before."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from service.answers import parse_score
from service.client import encode_image
from service.contract import RolloutPrompt, RolloutRequest, RolloutResponse, RolloutResult
from service.prompts import Profile
from trainer.pool.pool import Pool
from trainer.workers.workers import Workers


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


@dataclass(frozen=True, slots=True)
class Served:
    """A version of the weights, and an adapter on it; without one, the version itself."""

    version: str
    adapter: str | None = None


def sample_scores(
    workers: Workers,
    pool: Pool,
    images: Sequence[str],
    served: Served,
    *,
    samples: int,
    seed: int,
    batch: int = 32,
    advance: Callable[[int], None] = lambda _: None,
) -> list[RolloutResult]:
    """`samples` answers to `c_score` for each image (content ids), at temperature 1, in the images' order; `advance` is
    told how many images each batch had.

    Raises:
        ServiceError: the service refused, for example because the version is no longer the active one.
    """
    results: list[RolloutResult] = []
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch]
        prompts = [
            RolloutPrompt(task="score", images=[image], samples=samples, seed=(seed + 131 * (start + row)) % 2**31)
            for row, image in enumerate(chunk)
        ]
        encoded = {image: encode_image(pool.bytes_of(image)) for image in chunk}
        response: RolloutResponse = workers.rollouts(
            RolloutRequest(images=encoded, prompts=prompts, adapter=served.adapter, version=served.version)
        )
        results += response.results
        advance(len(chunk))
    return results


def to_scores(rollouts: Sequence[RolloutResult], profile: Profile) -> NDArray[np.float64]:
    """(B, K) scores, NaN where an answer is unreadable."""
    parsed = [[parse_score(completion.text, profile) for completion in rollout.completions] for rollout in rollouts]
    return np.array([[np.nan if score is None else score for score in group] for group in parsed], dtype=np.float64)
