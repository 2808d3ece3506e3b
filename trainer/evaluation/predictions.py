"""Asks a service to score the images of a benchmark, and keeps every answer as a line of JSON.

A killed run loses no answer, and metrics can be computed again without the model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evoquality import AsyncClient, ServiceError
from trainer import termination
from trainer.errors import UserError
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.files import append_jsonl, built, read_jsonl
from trainer.settings.protocol import Protocol

SETTINGS = ("profile", "dtype", "min_pixels", "max_pixels")
"""Fields of `GET /v1/info` that answers depend on besides the weights."""
Advance = Callable[[int], object]
IN_FLIGHT = 32
PATIENCE_S = 600.0
"""Seconds to wait for a service that has answered and is now away or busy."""
_LOOKS_S = 0.2
_PICTURES_OWN = {"invalid_image", "body_too_large"}


@dataclass(frozen=True, slots=True)
class Prediction:
    """A model's score of one image, and how it was obtained."""

    id: str
    score: float | None
    """None if no answer was readable or the service refused the image."""
    std: float | None
    """Standard deviation of the model's answers."""
    unreadable: float
    """Share of answers without a readable score."""
    refused: str | None
    """Reason if the service refused the image, else None."""
    version: str
    protocol: dict[str, Any]
    settings: dict[str, Any]
    """Settings of the service, see `SETTINGS`."""


class Predictions:
    """One model's predictions on one benchmark, appended to a file."""

    def __init__(self, folder: Path, benchmark: str) -> None:
        """Reads the file. Raises UserError if its predictions differ in version, protocol or settings."""
        self.file = folder / f"{benchmark}.jsonl"
        self._by_id: dict[str, Prediction] = {}
        for row in read_jsonl(self.file):
            self._keep(built(Prediction, row))

    def add(self, prediction: Prediction) -> None:
        """Appends a prediction. Raises UserError if its version, protocol or settings differ from the others'."""
        self._keep(prediction)
        append_jsonl(self.file, [asdict(prediction)])

    @property
    def first(self) -> Prediction | None:
        """The first prediction, representative of all; None if there is none."""
        return next(iter(self._by_id.values()), None)

    def check(self, protocol: Protocol, version: str | None = None, settings: Mapping[str, Any] | None = None) -> None:
        """Raises UserError if the predictions have another version, protocol or settings."""
        if self.first is None:
            return
        if version not in (None, self.first.version):
            raise UserError(self._other(f"version {self.first.version}", f"version {version}"))
        if not protocol.includes(built(Protocol, self.first.protocol)):
            raise UserError(self._other(f"the protocol '{built(Protocol, self.first.protocol)}'", f"'{protocol}'"))
        for name, value in (settings or {}).items():
            if value != self.first.settings[name]:
                raise UserError(self._other(f"a service with {name} {self.first.settings[name]}", f"one with {value}"))

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Images without a prediction."""
        return [image for image in ids if image not in self._by_id]

    def of(self, ids: Iterable[str]) -> list[Prediction]:
        """Predictions in the order of `ids`. Raises KeyError for a missing one."""
        return [self._by_id[image] for image in ids]

    def _keep(self, prediction: Prediction) -> None:
        self.check(built(Protocol, prediction.protocol), prediction.version, prediction.settings)
        self._by_id[prediction.id] = prediction

    def _other(self, kept: str, asked: str) -> str:
        return (
            f"{self.file} holds predictions of {kept}, not of {asked}: give another folder with --out, or delete the "
            "file to start over"
        )


def check_all(
    kept: Sequence[Predictions],
    protocol: Protocol,
    version: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Raises UserError unless all predictions have the same version, protocol and settings, those given."""
    for predictions in kept:
        predictions.check(protocol, version, settings)
    if first := next((one.first for one in kept if one.first), None):
        for predictions in kept:
            predictions.check(built(Protocol, first.protocol), first.version, first.settings)


def scores(predictions: Sequence[Prediction]) -> NDArray[np.float64]:
    """(N,) predicted scores; NaN where there is none."""
    return np.array([np.nan if one.score is None else one.score for one in predictions])


def ask(
    url: str,
    benchmark: Benchmark,
    protocol: Protocol,
    kept: Predictions,
    key: str | None = None,
    patience: float = PATIENCE_S,
    advance: Advance = lambda _: None,
) -> None:
    """Scores every image of the benchmark without a prediction. Calls `advance` for each one done.

    An image that the service refuses is recorded as refused.

    Raises:
        ServiceError: the service refused a request for another reason than its image.
        TransportError: the service does not answer.
        UserError: existing predictions differ in version, protocol or settings, or the version changed meanwhile.
    """
    if missing := kept.missing(benchmark.ids):
        with termination.signals_deferred():  # an exception raised in one task would be lost
            client = AsyncClient(url, key, patience_s=patience)
            asyncio.run(_ask(client, benchmark.root, iter(missing), protocol, kept, advance))


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
                    answer = await client.score(root / image, settled.options(image))
                    found = made(image, answer.score, answer.std, answer.unreadable, None, answer.version)
                except ServiceError as refusal:
                    if refusal.problem.code not in _PICTURES_OWN:
                        raise
                    found = made(image, None, None, 1.0, str(refusal), info.version)
                kept.add(found)
                advance(1)

        await _unless_ended(asyncio.gather(*(work() for _ in range(IN_FLIGHT))))


async def _unless_ended(work: asyncio.Future[list[None]]) -> None:
    """Waits for the work, and cancels it on a termination signal."""
    while not work.done():
        if termination.came():
            work.cancel()
        await asyncio.wait([work], timeout=_LOOKS_S)
    if not work.cancelled():
        work.result()
