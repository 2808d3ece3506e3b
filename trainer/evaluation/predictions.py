"""Predictions kept as JSON lines, so that metrics are computed again without the model, and a killed run loses none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.contract import ScoreResponse
from trainer.evaluation.protocol import Protocol
from trainer.files import append_jsonl, read_jsonl


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

    @classmethod
    def of(cls, image_id: str, answer: ScoreResponse, protocol: Protocol) -> Prediction:
        """The service's answer."""
        asked = protocol.as_dict()
        return cls(image_id, answer.score, answer.std, answer.unreadable, None, answer.version, asked)


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
    def version(self) -> str | None:
        """Of the weights; None while there is no prediction."""
        return self._first.version if self._first else None

    @property
    def protocol(self) -> Protocol | None:
        """How the model was asked; None while there is no prediction."""
        return Protocol(**self._first.protocol) if self._first else None

    def check(self, version: str | None, protocol: Protocol) -> None:
        """Raises ValueError if what is there was made by another version, or asked in another way."""
        if self._first and version not in (None, self.version):
            raise ValueError(self._other(f"version {self.version}", f"version {version}"))
        if self.protocol and not protocol.includes(self.protocol):
            raise ValueError(self._other(f"the protocol '{self.protocol}'", f"'{protocol}'"))

    def missing(self, ids: Iterable[str]) -> list[str]:
        """The images that were not asked about."""
        return [image for image in ids if image not in self._by_id]

    def of(self, ids: Iterable[str]) -> list[Prediction]:
        """In the order of `ids`. Raises KeyError for one that is missing."""
        return [self._by_id[image] for image in ids]

    @property
    def _first(self) -> Prediction | None:
        return next(iter(self._by_id.values()), None)

    def _keep(self, prediction: Prediction) -> None:
        self.check(prediction.version, Protocol(**prediction.protocol))
        self._by_id[prediction.id] = prediction

    def _other(self, kept: str, asked: str) -> str:
        return (
            f"{self.file} holds predictions of {kept}, but {asked} is asked: name another folder with --out, or remove "
            "the file to ask anew"
        )


def scores(predictions: Sequence[Prediction]) -> NDArray[np.float64]:
    """(N,) predicted scores, NaN where there is none."""
    return np.array([np.nan if one.score is None else one.score for one in predictions])
