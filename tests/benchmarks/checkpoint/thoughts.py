"""The thoughts that the thinking checkpoint is tuned on: words about the damage of synthetic pictures, then an answer.

What a thought says follows the picture, with chance: the strength of damage is misjudged, looks are repeated or left
out. The answer follows what the thought saw. So thoughts of one picture differ in words, length and answer, as those of
a large model do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.prompts import ProfileName

LIGHTS = ("dark", "dim", "bright", "brilliant")
COLOURS = ("grey", "pale", "rich", "vivid")
STRENGTHS = ("faint", "slight", "clear", "strong", "extreme")
QUALITIES = ("bad", "poor", "fair", "good", "excellent")
"""The categories of ITU-R BT.500."""
_PLACES = ("first", "second")
_STRENGTH_LIMITS = (0.3, 0.7, 1.2, 2.0)
_LOOK_LIMITS = (-0.8, 0.0, 0.8)
_MISJUDGED = 0.3
_ANOTHER_LOOK, _MOST_LOOKS = 0.4, 4


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to say about a picture."""

    damages: tuple[str, ...]
    """Families of its distortions; none if it is undamaged."""
    severity: float
    """Of all damage together, see `trainer.demo.truth`."""
    light: float
    """Brightness, standardised over the pictures."""
    colour: float
    """Saturation, standardised likewise."""

    @property
    def quality(self) -> float:
        """1 to 5."""
        return 1 + 4 * math.exp(-self.severity)

    def misjudged(self, rng: np.random.Generator) -> Seen:
        """The picture as one thought sees it."""
        noise = rng.normal(0, _MISJUDGED) if self.damages else 0.0
        return replace(self, severity=max(0.0, self.severity + noise))


def answer(thought: str, said: str, profile: ProfileName) -> str:
    """A thought and its answer as a profile writes them."""
    end = rf" \boxed{{{said}}}" if profile == "evoquality" else f" <answer>{said}</answer>"
    return f"<think> {thought} </think>{end}"


def score_thought(seen: Seen, score: float, rng: np.random.Generator) -> str:
    """A thought that mostly ends in a word for `score`, 1 to 5."""
    said = [_look(seen)] if rng.random() < 0.6 else []
    said.append(f"I see {_damage(seen, rng)}.")
    said += [_again("", seen, rng) for _ in range(_looks(rng))]
    return _ended(said, f"So the quality is {QUALITIES[round(score) - 1]}.", rng)


def compare_thought(pair: Sequence[Seen], better: int, rng: np.random.Generator) -> str:
    """A thought that mostly ends by naming picture number `better`, 0 or 1."""
    first, second = (_damage(seen, rng) for seen in pair)
    said = [f"The first has {first}, the second {second}."]
    for place in rng.integers(0, 2, _looks(rng)):
        said.append(_again(f"{_PLACES[place]} ", pair[place], rng))
    return _ended(said, f"So the {_PLACES[better]} is better.", rng)


def _ended(said: list[str], end: str, rng: np.random.Generator) -> str:
    return " ".join([*said, end] if rng.random() < 0.85 else said)


def _looks(rng: np.random.Generator) -> int:
    return min(int(rng.geometric(1 - _ANOTHER_LOOK)) - 1, _MOST_LOOKS)


def _look(seen: Seen) -> str:
    return f"The picture is {_word(LIGHTS, _LOOK_LIMITS, seen.light)} and {_word(COLOURS, _LOOK_LIMITS, seen.colour)}."


def _damage(seen: Seen, rng: np.random.Generator) -> str:
    if not seen.damages:
        return "no damage"
    return f"{_strength(seen)} {' and '.join(rng.permutation(seen.damages))}"


def _again(which: str, seen: Seen, rng: np.random.Generator) -> str:
    if not seen.damages:
        return f"Let me look again: the {which}picture is clean."
    return f"Let me look again: the {which}{rng.choice(seen.damages)} is {_strength(seen)}."


def _strength(seen: Seen) -> str:
    return _word(STRENGTHS, _STRENGTH_LIMITS, seen.severity)


def _word(words: Sequence[str], limits: Sequence[float], value: float) -> str:
    return words[int(np.searchsorted(limits, value))]
