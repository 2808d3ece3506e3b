"""Asks a service about the images of a benchmark, several at a time, and keeps every answer as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay

from service.client import AsyncClient, ServiceError
from service.contract import InfoResponse, ScoreResponse
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.predictions import Prediction, Predictions
from trainer.evaluation.protocol import Protocol

Advance = Callable[[int], object]

IN_FLIGHT = 32
PATIENCE_S = 600.0
"""How long a busy service is asked again about an image, after what it tells to wait."""
_BUSY = {429, 503}
_PICTURES_OWN = {"invalid_image", "body_too_large"}


def ask(url: str, benchmark: Benchmark, protocol: Protocol, kept: Predictions, *, advance: Advance) -> None:
    """Asks about every image of the benchmark that has no prediction yet.

    A picture that the service refuses is kept as such. `advance` is told of images as they are done.

    Raises:
        ServiceError: the service refused more than a picture.
        TransportError: nobody answers.
        ValueError: the predictions there were made by another version or in another way, or the version changed.
    """
    missing = kept.missing(benchmark.ids)
    advance(len(benchmark.ids) - len(missing))
    if missing:
        asyncio.run(_ask(url, benchmark, protocol, kept, iter(missing), advance))


async def _ask(
    url: str, benchmark: Benchmark, protocol: Protocol, kept: Predictions, missing: Iterator[str], advance: Advance
) -> None:
    async with AsyncClient(url) as client:
        info = await client.info()
        settled = protocol.settled(info)
        kept.check(info.version, settled)

        async def work() -> None:
            for image in missing:
                kept.add(await _prediction(client, info, benchmark, image, settled))
                advance(1)

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))


async def _prediction(
    client: AsyncClient, info: InfoResponse, benchmark: Benchmark, image: str, protocol: Protocol
) -> Prediction:
    again = AsyncRetrying(retry=retry_if_exception(_is_busy), stop=stop_after_delay(PATIENCE_S), reraise=True)
    try:
        answer: ScoreResponse = await again(client.score, benchmark.root / image, protocol.options(image))
    except ServiceError as error:
        if error.problem.code not in _PICTURES_OWN:
            raise
        return Prediction(image, None, None, 1.0, str(error), info.version, protocol.as_dict())
    return Prediction.of(image, answer, protocol)


def _is_busy(error: BaseException) -> bool:
    """The client itself waits for as long as it is told, but gives up after a few times."""
    return isinstance(error, ServiceError) and error.problem.status in _BUSY
