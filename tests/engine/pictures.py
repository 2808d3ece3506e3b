"""Small pictures of many qualities, and questions about them that have one right answer: greedy ones."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
from PIL import Image

from evoquality import encode_image
from evoquality.contract import RolloutPrompt, RolloutRequest, RolloutResponse
from tests.engine.running import Running


def pictures(count: int, seed: int = 0) -> list[bytes]:
    """PNG files of smooth random colours, noisy to different degrees."""
    noise = np.random.default_rng(seed)
    files = []
    for index in range(count):
        coarse = noise.integers(0, 256, (4 + index % 9, 4 + index % 9, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((112, 112), Image.Resampling.BICUBIC), np.float64)
        noisy = smooth + noise.normal(0, 4 * (index % 8), smooth.shape)
        stream = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(stream, "PNG")
        files.append(stream.getvalue())
    return files


def ask_greedily(service: Running, images: list[bytes], adapter: str | None = None) -> RolloutResponse:
    """One greedy score of every picture, and one greedy vote on every neighbouring pair."""
    keys = [str(index) for index in range(len(images))]
    prompts = [RolloutPrompt(task="score", images=[key], samples=1) for key in keys]
    prompts += [RolloutPrompt(task="compare", images=list(pair), samples=1) for pair in pairwise(keys)]
    encoded = {key: encode_image(image) for key, image in zip(keys, images, strict=True)}
    request = RolloutRequest(images=encoded, prompts=prompts, temperature=0.0, adapter=adapter)
    return service.operators.rollouts(request)


def tokens(response: RolloutResponse) -> list[list[int]]:
    """The sampled tokens of every prompt's only answer."""
    return [result.completions[0].token_ids for result in response.results]


def logprobs(response: RolloutResponse) -> list[float]:
    """The log-probability of every first token."""
    return [result.completions[0].logprobs[0] for result in response.results]
