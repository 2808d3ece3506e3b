"""Canary pictures, which a version must answer readably before it may serve. Made in code, 112 pixels a side."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageFilter

from service.answers import read_scores
from service.concurrency import gather
from service.engine.protocol import Engine, Prompt, Sample, Sampling
from service.prompts import Profile

_SIDE = 112


def canary_images() -> list[Image.Image]:
    """Gradients and edges, sharp and blurred, bright and dark."""
    linear = Image.linear_gradient("L").resize((_SIDE, _SIDE))
    radial = Image.radial_gradient("L").resize((_SIDE, _SIDE))
    checks = Image.new("L", (8, 8))
    checks.putdata([255 * ((index + index // 8) % 2) for index in range(64)])
    sharp = Image.merge("RGB", (linear, radial, checks.resize((_SIDE, _SIDE), Image.Resampling.NEAREST)))
    blurred = sharp.filter(ImageFilter.GaussianBlur(4))
    dark = sharp.point(lambda value: value * 0.25)
    flipped = sharp.transpose(Image.Transpose.ROTATE_90)
    return [sharp, blurred, dark, flipped]


async def ask_canaries(engine: Engine, profile: Profile) -> list[Sample]:
    """The likeliest answer to each canary picture, with log-probabilities."""
    prompts = [Prompt("score", (image,), profile) for image in canary_images()]
    sampling = Sampling(1, temperature=0.0, logprobs=True)
    answers = await gather(*(engine.generate(prompt, sampling) for prompt in prompts))
    return [answer.samples[0] for answer in answers]


def readable_share(samples: Sequence[Sample], profile: Profile) -> float:
    """Share of the answers with a readable score."""
    return len(read_scores([sample.text for sample in samples], profile)) / len(samples)
