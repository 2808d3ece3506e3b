"""Users' latencies while a round's rollouts keep the same engine busy."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter

from service.client import AsyncClient
from service.concurrency import together
from service.contract import RolloutPrompt, RolloutRequest
from tests.benchmarks.serving.load import Measurement, measure
from tests.benchmarks.serving.pictures import fresh
from tests.benchmarks.serving.sides import Served

CALLERS, IMAGES, REPEATS = 16, 256, 3
PROMPTS, SAMPLES, AT_ONCE = 8, 8, 2
"""Rollouts: prompts a batch, answers a prompt, clients with 8 batches each on their way."""


@dataclass
class BesideRollouts:
    """Users' expected scores without rollouts and with them, in turn, and the answers a second rollouts got."""

    alone: list[Measurement] = field(default_factory=list)
    busy: list[Measurement] = field(default_factory=list)
    rollout_answers_per_second: list[float] = field(default_factory=list)


async def under_rollouts(served: Served, seeds: Iterator[int]) -> BesideRollouts:
    """Rollouts always have more batches waiting than the engine takes. Raises what made them fail."""
    taken = BesideRollouts()
    for _ in range(REPEATS):
        taken.alone.append(await measure(served.asks["expected"], fresh(IMAGES, next(seeds)), CALLERS))
        answers: list[float] = []
        rollouts = [asyncio.create_task(_saturate(served, seeds, answers)) for _ in range(AT_ONCE)]
        await asyncio.sleep(1)
        pictures, began = fresh(IMAGES, next(seeds)), perf_counter()
        taken.busy.append(await measure(served.asks["expected"], pictures, CALLERS))
        taken.rollout_answers_per_second.append(sum(t > began for t in answers) * SAMPLES / (perf_counter() - began))
        for task in rollouts:
            if task.done():
                task.result()
            task.cancel()
        await asyncio.gather(*rollouts, return_exceptions=True)
        await asyncio.sleep(2)
    return taken


async def _saturate(served: Served, seeds: Iterator[int], answers: list[float]) -> None:
    """Small batches, so that their answers can be counted by the second; many of them."""
    batches = [_batch(next(seeds)) for _ in range(8)]
    async with AsyncClient(served.operator_url, served.key) as client:

        async def one(request: RolloutRequest) -> None:
            while True:
                await client.rollouts(request)
                answers.extend([perf_counter()] * PROMPTS)

        await together(*(one(batch) for batch in batches))


def _batch(seed: int) -> RolloutRequest:
    images = {str(n): base64.b64encode(png).decode() for n, png in enumerate(fresh(PROMPTS, seed))}
    prompts = [RolloutPrompt(task="score", images=[name], samples=SAMPLES) for name in images]
    return RolloutRequest(images=images, prompts=prompts)
