"""The protocol of an evaluation: the question about an image, and the part of a benchmark that is asked about."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any, Literal

from evoquality.contract import InfoResponse, ScoreOptions

Mode = Literal["auto", "expected", "sampled"]
THOUGHTS = 4
Split = Literal["auto", "all", "train", "validation", "test"]
"""A part of a benchmark. `auto` is the official test part where there is one, else everything."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """One question an image; its prediction is the answer's score."""

    mode: Mode = "auto"
    """`expected`: the mean of the model's own distribution of scores, of a model that thinks behind drawn thoughts.
    `sampled`: the mean of drawn answers. `auto`: the model's own, expected."""
    samples: int = 16
    """Answers drawn an image; sampled mode only."""
    seed: int = 0
    """Of drawn answers and thoughts."""
    thoughts: int | None = None
    """Thoughts drawn an image; expected mode of a model that thinks only, where it is `THOUGHTS` unless given."""

    def settled(self, info: InfoResponse) -> Protocol:
        """This protocol with `auto` replaced by the model's own mode, and thoughts only where there are any."""
        mode = info.modes[0] if self.mode == "auto" else self.mode
        thinks = info.thinks and mode == "expected"
        return replace(self, mode=mode, thoughts=(self.thoughts or THOUGHTS) if thinks else None)

    def options(self, image_id: str) -> ScoreOptions:
        """The question about an image. Its seed does not depend on which other images are asked about."""
        seed = (self.seed + zlib.crc32(image_id.encode())) % 2**31
        if self.mode != "sampled":
            return ScoreOptions(mode="expected", thoughts=self.thoughts, seed=seed if self.thoughts else None)
        return ScoreOptions(mode="sampled", samples=self.samples, seed=seed)

    def includes(self, settled: Protocol) -> bool:
        """True if answers to a settled protocol are what this one asks for."""
        thoughts = (self.thoughts or THOUGHTS) if settled.thoughts else None
        asked = replace(self, mode=settled.mode, thoughts=thoughts)
        return self.mode in ("auto", settled.mode) and asked.as_dict() == settled.as_dict()

    def as_dict(self) -> dict[str, Any]:
        """The parts that the answers depend on."""
        drawn = {"samples": self.samples} if self.mode != "expected" else {"thoughts": self.thoughts}
        seed = {"seed": self.seed}
        return {"mode": self.mode, **(drawn | seed if any(drawn.values()) else {})}

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.as_dict().items())
