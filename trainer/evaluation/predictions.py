"""Predictions kept as JSON lines, so that metrics are computed again without the model, and a killed run loses none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import UserError
from trainer.evaluation.protocol import Protocol
from trainer.files import append_jsonl, read_jsonl

SETTINGS = ("profile", "dtype", "min_pixels", "max_pixels")
"""What else than the weights a service's answers depend on, as `GET /v1/info` tells it."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model said of one image, and how it was asked."""

    id: str
    score: float | None
    """None: no answer was readable, or the service refused the picture."""
    std: float | None
    """Of the model's answers."""
    unreadable: float
    """Share of its answers that held no score."""
    refused: str | None
    """Why the service did not take the picture; None: it did."""
    version: str
    protocol: dict[str, Any]
    settings: dict[str, Any]
    """Of the service: what else an answer depends on (see `SETTINGS`)."""


class Predictions:
    """One model's predictions on one benchmark, in a file that grows answer by answer."""

    def __init__(self, folder: Path, benchmark: str) -> None:
        """Reads what is there. Raises ValueError if not all of it was made by one version in one way."""
        self.file = folder / f"{benchmark}.jsonl"
        self._by_id: dict[str, Prediction] = {}
        for row in read_jsonl(self.file):
            self._keep(Prediction(**row))

    def add(self, prediction: Prediction) -> None:
        """Keeps an answer at once. Raises ValueError if another version gave it, or to another question."""
        self._keep(prediction)
        append_jsonl(self.file, [asdict(prediction)])

    @property
    def first(self) -> Prediction | None:
        """The others were made by the same version in the same way."""
        return next(iter(self._by_id.values()), None)

    def check(self, protocol: Protocol, version: str | None = None, settings: Mapping[str, Any] | None = None) -> None:
        """Raises ValueError if what is there was asked in another way, or made by another version or service."""
        if self.first is None:
            return
        if version not in (None, self.first.version):
            raise UserError(self._other(f"version {self.first.version}", f"version {version}"))
        if not protocol.includes(Protocol(**self.first.protocol)):
            raise UserError(self._other(f"the protocol '{Protocol(**self.first.protocol)}'", f"'{protocol}'"))
        for name, value in (settings or {}).items():
            if value != self.first.settings[name]:
                raise UserError(self._other(f"a service with {name} {self.first.settings[name]}", f"one with {value}"))

    def missing(self, ids: Iterable[str]) -> list[str]:
        """The images that were not asked about."""
        return [image for image in ids if image not in self._by_id]

    def of(self, ids: Iterable[str]) -> list[Prediction]:
        """In the order of `ids`. Raises KeyError for one that is missing."""
        return [self._by_id[image] for image in ids]

    def _keep(self, prediction: Prediction) -> None:
        self.check(Protocol(**prediction.protocol), prediction.version, prediction.settings)
        self._by_id[prediction.id] = prediction

    def _other(self, kept: str, asked: str) -> str:
        return (
            f"{self.file} holds predictions of {kept}, but {asked} is asked now: name another folder with --out, or "
            "remove the file to ask anew"
        )


def check_all(
    kept: Sequence[Predictions],
    protocol: Protocol,
    version: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Raises ValueError unless all benchmarks' predictions are of one version, made in one way, the one asked for."""
    for predictions in kept:
        predictions.check(protocol, version, settings)
    if first := next((one.first for one in kept if one.first), None):
        for predictions in kept:
            predictions.check(Protocol(**first.protocol), first.version, first.settings)


def scores(predictions: Sequence[Prediction]) -> NDArray[np.float64]:
    """(N,) predicted scores, NaN where there is none."""
    return np.array([np.nan if one.score is None else one.score for one in predictions])
