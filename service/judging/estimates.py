"""What an answering mode finds out about one prompt, before it becomes a response."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service.contract import Mode, Options
from service.errors import InvalidRequest
from service.prompts import Profile

DEFAULT_SAMPLES = 8


@dataclass(frozen=True, slots=True)
class ScoreEstimate:
    """The score of one image. `distribution`: probability by score in tenths, of the readable answers."""

    score: float | None
    std: float | None
    unreadable: float
    distribution: Mapping[float, float]
    entropy: float | None = None
    samples: int | None = None
    answers: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class VoteEstimate:
    """One order of presentation: votes or probabilities for the image shown first, the second, unreadable ones.

    Counts in sampled mode, probabilities that sum to 1 in expected mode.
    """

    shown_first: float
    shown_second: float
    unreadable: float
    answers: Sequence[str] | None = field(default=None)

    @property
    def preference(self) -> float | None:
        """The share of the readable answers that prefers the image shown first; None if there is none."""
        readable = self.shown_first + self.shown_second
        return self.shown_first / readable if readable > 0 else None


def chosen_mode(options: Options, profile: Profile) -> Mode:
    """The mode of a request. Raises InvalidRequest if the options contradict each other or the profile."""
    sampling = [name for name in ("samples", "temperature", "seed") if getattr(options, name, None) is not None]
    mode = options.mode or ("sampled" if sampling or profile.thinks or wants_text(options) else "expected")
    if mode == "sampled":
        return mode
    if profile.thinks:
        raise InvalidRequest("mode: the serving model thinks before it answers; it only has the mode sampled.")
    if sampling:
        raise InvalidRequest(f"{sampling[0]}: only the mode sampled takes it.")
    if wants_text(options):
        raise InvalidRequest("reasoning: the mode expected draws no answers; take the mode sampled.")
    return mode


def wants_text(options: Options) -> bool:
    """Whether the answers' texts were asked for."""
    return bool(getattr(options, "reasoning", False))


def in_tenths(weights: Mapping[float, float]) -> dict[float, float]:
    """A distribution over scores as probabilities by tenth, in order. Empty if there is nothing to share out."""
    total = math.fsum(weights.values())
    tenths: dict[float, float] = {}
    for score, weight in weights.items():
        tenth = math.floor(round(score * 1000) / 100) / 10
        tenths[tenth] = tenths.get(tenth, 0.0) + weight / total
    return dict(sorted(tenths.items()))
