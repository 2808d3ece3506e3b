"""So many callers, each asking for its next picture as soon as it has an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

Ask = Callable[[bytes], Awaitable[float | None]]


@dataclass(frozen=True)
class Measurement:
    """Throughput and latencies of one load."""

    images_per_second: float
    p50_ms: float
    p99_ms: float


async def measure(ask: Ask, pictures: Sequence[bytes], callers: int) -> Measurement:
    """Asks about every picture once."""
    left, latencies = iter(pictures), []

    async def caller() -> None:
        for picture in left:
            began = perf_counter()
            await ask(picture)
            latencies.append(perf_counter() - began)

    began = perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    p50, p99 = np.percentile(latencies, (50, 99)) * 1000
    return Measurement(len(pictures) / (perf_counter() - began), float(p50), float(p99))
