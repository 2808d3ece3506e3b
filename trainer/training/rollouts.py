"""Rollouts: score answers sampled from the service for the online stage and the gate, for training in a thread beside
the update of the step before."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from evoquality.contract import RolloutPrompt, RolloutResult
from service.answers import parse_score
from service.prompts import Profile
from trainer.pool.pool import Pool
from trainer.workers.workers import Workers


@dataclass(frozen=True, slots=True)
class Served:
    """The names under which the service answers as a policy: a version and an adapter on it; None: the version
    itself."""

    version: str
    adapter: str | None = None


class SampledGroup(BaseModel):
    """The answers to each image of one step's group."""

    results: list[RolloutResult]
    seconds: float
    """The time that sampling took."""
    mismatch: float = 0.0
    """The difference between engine and torch on the first image, before the weights moved: `Learner.mismatch`."""


class Sampler:
    """Samples in a thread of its own. A context manager: it waits for a sampling that is under way, except after an
    error, when the process is to end at once."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rollouts")

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown(wait=kind is None)

    def begin(
        self, serving: AbstractContextManager[Served], sample: Callable[[Served], list[RolloutResult]]
    ) -> Future[SampledGroup]:
        """Samples from the policy as it is now: it is handed over before this returns, and may change afterwards."""
        began, handed_over = time.monotonic(), ExitStack()
        served = handed_over.enter_context(serving)

        def work() -> SampledGroup:
            with handed_over:
                results = sample(served)
            return SampledGroup(results=results, seconds=time.monotonic() - began)

        return self._thread.submit(work)


def sample_scores(
    workers: Workers,
    pool: Pool,
    images: Sequence[str],
    served: Served,
    *,
    samples: int,
    seed: int,
    logprobs: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> list[RolloutResult]:
    """Samples answers to `c_score` at temperature 1.

    Args:
        workers: the replicas to ask.
        pool: holds the images.
        images: B content ids.
        served: the policy to sample from.
        samples: K answers an image.
        seed: of the sampling.
        logprobs: whether the answers carry log-probabilities, and their prompts.
        advance: hears of every image that is answered.

    Returns:
        K answers to each of the B images, in their order.

    Raises:
        ServiceError: the service refused, for example because the version is no longer the active one.
    """
    prompts = [
        RolloutPrompt(task="score", images=[image], samples=samples, seed=(seed + 131 * row) % 2**31)
        for row, image in enumerate(images)
    ]
    return workers.rollouts(
        prompts, pool, version=served.version, adapter=served.adapter, logprobs=logprobs, advance=advance
    )


def to_scores(rollouts: Sequence[RolloutResult], profile: Profile) -> NDArray[np.float64]:
    """(B, K) scores, NaN where an answer is unreadable."""
    parsed = [[parse_score(completion.text, profile) for completion in rollout.completions] for rollout in rollouts]
    return np.array([[np.nan if score is None else score for score in group] for group in parsed], dtype=np.float64)


def cut_off(rollouts: Sequence[RolloutResult], scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(B, K) True where the token limit ended an answer before it had a score; `scores` are those of `to_scores`."""
    ended = [[completion.finish_reason == "length" for completion in rollout.completions] for rollout in rollouts]
    return np.array(ended) & np.isnan(scores)
