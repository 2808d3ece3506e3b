"""Asks a service about the images of a benchmark, several at a time, and keeps every answer as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay

from service.client import AsyncClient, ServiceError
from service.contract import ScoreOptions, ScoreResponse
from trainer import termination
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.predictions import SETTINGS, Prediction, Predictions
from trainer.settings.protocol import Protocol

Advance = Callable[[int], object]

IN_FLIGHT = 32
PATIENCE_S = 600.0
"""How long a busy service is asked again about an image, after what it tells to wait."""
_LOOKS_S = 0.2
_BUSY = {429, 503, 504}
_PICTURES_OWN = {"invalid_image", "body_too_large"}


def ask(
    url: str,
    benchmark: Benchmark,
    protocol: Protocol,
    kept: Predictions,
    *,
    key: str | None = None,
    advance: Advance = lambda _: None,
) -> None:
    """Asks about every image of the benchmark that has no prediction yet. `advance` is told of each that is done.

    A picture that the service refuses is kept as refused.

    Raises:
        ServiceError: the service refused more than a picture.
        TransportError: nobody answers.
        ValueError: the predictions there were made by another version or in another way, or the version changed.
    """
    if missing := kept.missing(benchmark.ids):
        with termination.held():  # raised in a task, it would be lost among the others
            asyncio.run(_ask(AsyncClient(url, key), benchmark.root, iter(missing), protocol, kept, advance))


async def _ask(
    client: AsyncClient, root: Path, missing: Iterator[str], protocol: Protocol, kept: Predictions, advance: Advance
) -> None:
    async with client:
        info = await client.info()
        settled, settings = protocol.settled(info), info.model_dump(include=set(SETTINGS))
        kept.check(settled, info.version, settings)
        made = partial(Prediction, protocol=settled.as_dict(), settings=settings)

        async def work() -> None:
            for image in missing:
                try:
                    answer = await _patiently(client, root / image, settled.options(image))
                    found = made(image, answer.score, answer.std, answer.unreadable, None, answer.version)
                except ServiceError as refusal:
                    if refusal.problem.code not in _PICTURES_OWN:
                        raise
                    found = made(image, None, None, 1.0, str(refusal), info.version)
                kept.add(found)
                advance(1)

        await _unless_ended(asyncio.gather(*(work() for _ in range(IN_FLIGHT))))


async def _unless_ended(work: asyncio.Future[list[None]]) -> None:
    """Waits for the work, or gives it up when a signal has come."""
    while not work.done():
        if termination.came():
            work.cancel()
        await asyncio.wait([work], timeout=_LOOKS_S)
    if not work.cancelled():
        work.result()


async def _patiently(client: AsyncClient, image: Path, options: ScoreOptions) -> ScoreResponse:
    """The client itself waits for as long as it is told, but gives up after a few times."""
    again = AsyncRetrying(retry=retry_if_exception(_is_busy), stop=stop_after_delay(PATIENCE_S), reraise=True)
    answer: ScoreResponse = await again(client.score, image, options)
    return answer


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, ServiceError) and error.problem.status in _BUSY
