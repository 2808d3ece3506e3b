"""What a request asks of the model: the mode, and what is sampled in it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from secrets import randbelow

from evoquality.contract import Mode, Options
from evoquality.options import RANDOM
from service.errors import InvalidRequest
from service.prompts import Profile

DEFAULT_SAMPLES, DEFAULT_THOUGHTS = 8, 4


@dataclass(frozen=True, slots=True)
class Draws:
    """Answers or thoughts to sample. A `seed` of None: the likeliest ones, where no chance is left."""

    count: int
    temperature: float = 1.0
    seed: int | None = None
    limit: int | None = None
    """Longest answer in tokens, thought included; None: as the engine's settings say."""

    def in_order(self, order: int) -> Draws:
        """Half of them, for one order of presentation, 0 or 1, with noise of its own."""
        seed = None if self.seed is None else derived_seed(self.seed, order)
        return replace(self, count=self.count // 2, seed=seed)


@dataclass(frozen=True, slots=True)
class Plan:
    """The mode, and what is sampled: answers (sampled), thoughts (expected, of a model that thinks), or nothing."""

    mode: Mode
    draws: Draws | None
    repeatable: bool
    """False if each request has a seed of its own."""

    @property
    def count(self) -> int:
        """The number of answers that are read."""
        return self.draws.count if self.draws else 1

    @property
    def samples(self) -> int | None:
        """The number of answers; None in expected mode."""
        return self.draws.count if self.draws and self.mode == "sampled" else None

    @property
    def thoughts(self) -> int | None:
        """The number of thoughts; None if none are sampled."""
        return self.draws.count if self.draws and self.mode == "expected" else None

    @property
    def seed(self) -> int | None:
        """The seed of what is sampled; None if nothing is left to chance."""
        return self.draws.seed if self.draws else None


def planned(options: Options, profile: Profile, digests: Sequence[str]) -> Plan:
    """The plan of a request about pictures with these digests. A seed that is not given is made of them, in any order.

    Raises InvalidRequest as `chosen_mode`.
    """
    mode = chosen_mode(options, profile)
    if mode == "expected" and not profile.thinks:
        return Plan(mode, None, repeatable=True)
    count = (
        _given(options, "samples", DEFAULT_SAMPLES)
        if mode == "sampled"
        else _given(options, "thoughts", DEFAULT_THOUGHTS)
    )
    temperature = 1.0 if options.temperature is None else options.temperature
    if temperature == 0:
        return Plan(mode, Draws(count, temperature), repeatable=True)
    seed = options.seed
    if seed is None:
        seed = derived_seed(*sorted(digests))
    elif seed == RANDOM:
        seed = randbelow(2**31)
    return Plan(mode, Draws(count, temperature, seed), repeatable=options.seed != RANDOM)


def chosen_mode(options: Options, profile: Profile) -> Mode:
    """The mode of a request. Raises InvalidRequest if the options contradict each other or the profile."""
    sampling = ["samples"] if profile.thinks else ["samples", "temperature", "seed", "reasoning"]
    given = [name for name in sampling if getattr(options, name, None) is not None]
    given = [name for name in given if name != "reasoning" or wants_text(options)]
    mode = options.mode or ("sampled" if given else "expected")
    if getattr(options, "thoughts", None) and not (profile.thinks and mode == "expected"):
        raise InvalidRequest("thoughts is allowed only with mode=expected, of a model that thinks before it answers.")
    if mode == "expected" and given:
        raise InvalidRequest(f"{given[0]} is allowed only with mode=sampled.")
    return mode


def wants_text(options: Options) -> bool:
    """True if the caller asked for the answers' texts."""
    return bool(getattr(options, "reasoning", False))


def derived_seed(*parts: object) -> int:
    """A seed made of some parts, for noise of its own."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4]) >> 1


def _given(options: Options, name: str, default: int) -> int:
    return getattr(options, name, None) or default
