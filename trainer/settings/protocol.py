"""The protocol of an evaluation: the question about an image, and the part of a benchmark that is asked about."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any, Literal

from evoquality.contract import InfoResponse, ScoreOptions

Mode = Literal["auto", "expected", "sampled"]
Split = Literal["auto", "all", "train", "validation", "test"]
"""A part of a benchmark. `auto` is the official test part where there is one, else everything."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """One question an image; its prediction is the answer's score."""

    mode: Mode = "auto"
    """`expected`: the mean of the model's own distribution of scores. `sampled`: the mean of drawn answers. `auto`:
    expected of a model that answers without thinking, else sampled."""
    samples: int = 16
    """Answers drawn an image; sampled mode only."""
    seed: int = 0
    """Makes drawn answers repeatable; sampled mode only."""

    def settled(self, info: InfoResponse) -> Protocol:
        """This protocol with `auto` replaced by the model's own mode."""
        return replace(self, mode=info.modes[0]) if self.mode == "auto" else self

    def options(self, image_id: str) -> ScoreOptions:
        """The question about an image. Its seed does not depend on which other images are asked about."""
        if self.mode != "sampled":
            return ScoreOptions(mode="expected")
        seed = (self.seed + zlib.crc32(image_id.encode())) % 2**31
        return ScoreOptions(mode="sampled", samples=self.samples, seed=seed)

    def includes(self, settled: Protocol) -> bool:
        """True if answers to a settled protocol are what this one asks for."""
        return self.mode in ("auto", settled.mode) and replace(self, mode=settled.mode).as_dict() == settled.as_dict()

    def as_dict(self) -> dict[str, Any]:
        """The parts that the answers depend on."""
        drawn = {} if self.mode == "expected" else {"samples": self.samples, "seed": self.seed}
        return {"mode": self.mode, **drawn}

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.as_dict().items())
