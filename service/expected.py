"""The mode `expected`: the model's own probabilities instead of samples. Repeatable, and cheaper than K answers.

A score is read digit by digit off a tree: the units after the question, the tenths after each likely unit, the
hundredths after each likely tenth.
"""

from __future__ import annotations

import math

from PIL.Image import Image

from service.contract import VersionInfo
from service.engine import Engine, Prompt, only_from
from service.estimates import ScoreEstimate, VoteEstimate, in_tenths
from service.prompts import PROFILES

DIGITS = tuple("0123456789")
UNITS = tuple("12345")


class Expected:
    """Estimates from the probabilities of an answer's tokens."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def score(self, version: VersionInfo, image: Image) -> ScoreEstimate:
        """The expectation of the score over the model's answers to `c_score`."""
        prompt = Prompt("score", (image,), PROFILES[version.profile])
        units = only_from(version.id, await self._engine.peek(prompt, [""], UNITS))
        points = only_from(version.id, await self._engine.peek(prompt, [f"{unit}." for unit in UNITS], DIGITS))
        weights: dict[float, float] = {}
        for unit, logp, tenths in zip(UNITS, units.logprobs[0], points.logprobs, strict=True):
            total = math.fsum(map(math.exp, tenths))
            for digit, tenth in zip(DIGITS, tenths, strict=True):
                weights[float(f"{unit}.{digit}5")] = math.exp(logp + tenth) / total
        mass = math.fsum(weights.values())
        mean = math.fsum(score * weight for score, weight in weights.items()) / mass
        variance = math.fsum((score - mean) ** 2 * weight for score, weight in weights.items()) / mass
        distribution = in_tenths(weights)
        entropy = -math.fsum(p * math.log(p) for p in distribution.values() if p > 0)
        return ScoreEstimate(mean, math.sqrt(variance), 1 - mass, distribution, entropy)

    async def vote(self, version: VersionInfo, shown: tuple[Image, Image]) -> VoteEstimate:
        """The probabilities of "0" and "1" in one order of presentation."""
        prompt = Prompt("compare", shown, PROFILES[version.profile])
        peek = only_from(version.id, await self._engine.peek(prompt, [""], ("0", "1")))
        zero, one = map(math.exp, peek.logprobs[0])
        return VoteEstimate(zero, one, max(0.0, 1 - zero - one))
