"""`make bench-serve`: the service against vLLM called directly and against vLLM's own server, in turn on one machine.

All sides get the same pictures, prompts and sampling; no engine sees a picture twice. Also measures users' latencies
while rollouts keep the engine busy. Writes `runs/bench/serve.json`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from itertools import count, product
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

from evoquality import AsyncClient
from evoquality.contract import RolloutPrompt, RolloutRequest
from service.concurrency import gather
from tests.benchmarks.serving.sides import (
    ENVIRONMENT,
    Ask,
    Measurement,
    Served,
    direct,
    fresh,
    measure,
    service,
    vllm_serve,
)

OUT = Path("runs/bench/serve.json")
IMAGES = {1: 48, 16: 192, 64: 384}
"""Number of clients -> pictures in one measurement."""
REPEATS = 3

Key = tuple[str, str, int]
"""Side, kind of request, number of clients."""
Results = Mapping[Key, list[Measurement]]
BUSY_CLIENTS, BUSY_IMAGES = 16, 256
PROMPTS, SAMPLES, AT_ONCE = 8, 8, 2
"""Rollouts: prompts per batch, answers per prompt, clients with 8 outstanding batches each."""


@dataclass
class Progress:
    """Prints one line per measurement."""

    console: Console

    def show(self, key: Key, result: Measurement) -> None:
        side, kind, callers = key
        self.console.print(
            f"{side:11} {kind:9} {callers:3} callers: {result.images_per_second:6.1f} images/s, "
            f"p50 {result.p50_ms:7.1f} ms, p99 {result.p99_ms:7.1f} ms",
            highlight=False,
        )


async def run() -> dict[str, Any]:
    """Runs all measurements. Returns the contents of `serve.json`."""
    progress, seeds = Progress(Console()), count(1)
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            served = await stack.enter_async_context(service(Path(folder)))
            sides: dict[str, Mapping[str, Ask]] = {
                "service": served.asks,
                "vllm_serve": await stack.enter_async_context(vllm_serve(Path(folder))),
                "direct": await stack.enter_async_context(direct()),
            }
            await _warm_up(sides, seeds)
            results: dict[Key, list[Measurement]] = defaultdict(list)
            for _ in range(REPEATS):
                for callers, kind in product(IMAGES, ("k1", "k8", "expected")):
                    pictures = fresh(IMAGES[callers], next(seeds))
                    for side, asks in sides.items():  # in turn, so that a slow minute hits all sides
                        if kind in asks:
                            result = await measure(asks[kind], pictures, callers)
                            results[side, kind, callers].append(result)
                            progress.show((side, kind, callers), result)
            beside = await under_rollouts(served, seeds)
    return _summary(results, beside)


async def _warm_up(sides: Mapping[str, Mapping[str, Ask]], seeds: Iterator[int]) -> None:
    for asks in sides.values():
        for ask in asks.values():
            await measure(ask, fresh(64, next(seeds)), callers=16)


def _summary(results: Results, beside: BesideRollouts) -> dict[str, Any]:
    middle = {key: _median(taken) for key, taken in results.items()}

    def rate(side: str, kind: str) -> float:
        return middle[side, kind, 64].images_per_second

    return {
        "table": [
            {"side": side, "kind": kind, "callers": callers, **asdict(row)}
            for (side, kind, callers), row in middle.items()
        ],
        "ratios": {
            "service_over_direct_k8": rate("service", "k8") / rate("direct", "k8"),
            "service_over_vllm_serve_k1": rate("service", "k1") / rate("vllm_serve", "k1"),
            "expected_over_vllm_serve_k8": rate("service", "expected") / rate("vllm_serve", "k8"),
        },
        "added_ms_p50_one_caller": middle["service", "k1", 1].p50_ms - middle["direct", "k1", 1].p50_ms,
        "p99_with_rollouts_over_without": (
            statistics.median(m.p99_ms for m in beside.busy) / statistics.median(m.p99_ms for m in beside.alone)
        ),
        "rollouts": asdict(beside),
    }


def _median(taken: list[Measurement]) -> Measurement:
    columns = zip(*(asdict(measurement).values() for measurement in taken), strict=True)
    return Measurement(*(statistics.median(column) for column in columns))


def _print(summary: Mapping[str, Any]) -> None:
    table = Table("side", "asked", "callers", "images/s", "p50 ms", "p99 ms")
    for row in summary["table"]:
        figures = (f"{row[name]:.1f}" for name in ("images_per_second", "p50_ms", "p99_ms"))
        table.add_row(row["side"], row["kind"], str(row["callers"]), *figures)
    Console().print(table)
    Console().print_json(data={key: value for key, value in summary.items() if key not in ("table", "rollouts")})


if __name__ == "__main__":
    os.environ.update(ENVIRONMENT)
    summary = asyncio.run(run())
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(summary, indent=2) + "\n")
    _print(summary)


@dataclass
class BesideRollouts:
    """Measurements of expected scores without and with rollouts, in turn, and the rollouts' answers per second."""

    alone: list[Measurement] = field(default_factory=list)
    busy: list[Measurement] = field(default_factory=list)
    rollout_answers_per_second: list[float] = field(default_factory=list)


async def under_rollouts(served: Served, seeds: Iterator[int]) -> BesideRollouts:
    """Measures with more rollout batches waiting than the engine can run. Re-raises a failure of the rollouts."""
    taken = BesideRollouts()
    for _ in range(REPEATS):
        taken.alone.append(await measure(served.asks["expected"], fresh(BUSY_IMAGES, next(seeds)), BUSY_CLIENTS))
        answers: list[float] = []
        rollouts = [asyncio.create_task(_saturate(served, seeds, answers)) for _ in range(AT_ONCE)]
        await asyncio.sleep(1)
        pictures, began = fresh(BUSY_IMAGES, next(seeds)), perf_counter()
        taken.busy.append(await measure(served.asks["expected"], pictures, BUSY_CLIENTS))
        taken.rollout_answers_per_second.append(sum(t > began for t in answers) * SAMPLES / (perf_counter() - began))
        for task in rollouts:
            if task.done():
                task.result()
            task.cancel()
        await asyncio.gather(*rollouts, return_exceptions=True)
        await asyncio.sleep(2)
    return taken


async def _saturate(served: Served, seeds: Iterator[int], answers: list[float]) -> None:
    """Sends many small batches, so that answers can be counted per second."""
    batches = [_batch(next(seeds)) for _ in range(8)]
    async with AsyncClient(served.operator_url, served.key) as client:

        async def one(request: RolloutRequest) -> None:
            while True:
                await client.rollouts(request)
                answers.extend([perf_counter()] * PROMPTS)

        await gather(*(one(batch) for batch in batches))


def _batch(seed: int) -> RolloutRequest:
    images = {str(n): base64.b64encode(png).decode() for n, png in enumerate(fresh(PROMPTS, seed))}
    prompts = [RolloutPrompt(task="score", images=[name], samples=SAMPLES) for name in images]
    return RolloutRequest(images=images, prompts=prompts)
