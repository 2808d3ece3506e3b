"""Sampled scores of pool images from the service: the online stage's rollouts, and the gate's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from evoquality import encode_image
from evoquality.contract import RolloutPrompt, RolloutRequest, RolloutResponse, RolloutResult
from service.answers import parse_score
from service.prompts import Profile
from trainer.pool.pool import Pool
from trainer.training.served import Served
from trainer.workers.workers import Workers


def sample(
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
