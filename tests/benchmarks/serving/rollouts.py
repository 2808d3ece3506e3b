"""Users' latencies while a round's rollouts keep the same engine busy."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator

from service.client import AsyncClient
from service.contract import RolloutPrompt, RolloutRequest
from tests.benchmarks.serving.load import Measurement, measure
from tests.benchmarks.serving.pictures import fresh
from tests.benchmarks.serving.sides import Served

CALLERS, IMAGES, REPEATS = 16, 256, 3
PROMPTS, SAMPLES, AT_ONCE = 64, 8, 2
"""Rollouts: prompts a batch, answers a prompt, batches on their way."""


async def under_rollouts(served: Served, seeds: Iterator[int]) -> tuple[list[Measurement], list[Measurement]]:
    """Measurements of users' expected scores, without rollouts and with them, in turn."""
    alone, busy = [], []
    for _ in range(REPEATS):
        alone.append(await measure(served.asks["expected"], fresh(IMAGES, next(seeds)), CALLERS))
        rollouts = [asyncio.create_task(_saturate(served, seeds)) for _ in range(AT_ONCE)]
        await asyncio.sleep(1)
        busy.append(await measure(served.asks["expected"], fresh(IMAGES, next(seeds)), CALLERS))
        for task in rollouts:
            task.cancel()
        await asyncio.gather(*rollouts, return_exceptions=True)
        await asyncio.sleep(2)
    return alone, busy


async def _saturate(served: Served, seeds: Iterator[int]) -> None:
    async with AsyncClient(served.operator_url, served.key) as client:
        while True:
            images = {str(n): base64.b64encode(png).decode() for n, png in enumerate(fresh(PROMPTS, next(seeds)))}
            prompts = [RolloutPrompt(task="score", images=[name], samples=SAMPLES) for name in images]
            await client.rollouts(RolloutRequest(images=images, prompts=prompts))
