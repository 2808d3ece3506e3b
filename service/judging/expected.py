"""The mode `expected`: the model's own probabilities instead of samples. Repeatable, and cheaper than K answers."""

from __future__ import annotations

import math

from PIL.Image import Image

from service.contract import VersionInfo
from service.engine.protocol import END, Engine, Prompt, only_from
from service.judging.estimates import ScoreEstimate, VoteEstimate, in_tenths
from service.judging.score_tree import LONGEST, TOKENS, ScoreTree
from service.prompts import PROFILES

VOTES = ("0", "1")


class Expected:
    """Estimates from the probabilities of an answer's tokens."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def score(self, version: VersionInfo, image: Image) -> ScoreEstimate:
        """The expectation of the score over the model's answers to `c_score`, with their deviation and entropy."""
        prompt = Prompt("score", (image,), PROFILES[version.profile])
        tree = ScoreTree()
        while beginnings := tree.unknown():
            steps = LONGEST - min(map(len, beginnings))
            paths = only_from(version.id, await self._engine.follow(prompt, beginnings, TOKENS, steps))
            for beginning, path in zip(beginnings, paths.steps, strict=True):
                tree.grow(beginning, path)
        return _estimate(tree.scores())

    async def vote(self, version: VersionInfo, shown: tuple[Image, Image]) -> VoteEstimate:
        """The probabilities of "0" and "1" in one order of presentation."""
        prompt = Prompt("compare", shown, PROFILES[version.profile])
        paths = only_from(version.id, await self._engine.follow(prompt, [""], (*VOTES, END), steps=1))
        first, second = (paths.steps[0][0].probabilities[vote] for vote in VOTES)
        return VoteEstimate(first, second, max(0.0, 1 - first - second))


def _estimate(scores: dict[float, float]) -> ScoreEstimate:
    mass = math.fsum(scores.values())
    if mass <= 0:
        return ScoreEstimate(None, None, 1.0, {})
    mean = math.fsum(score * p for score, p in scores.items()) / mass
    variance = math.fsum((score - mean) ** 2 * p for score, p in scores.items()) / mass
    tenths = in_tenths(scores)
    entropy = -math.fsum(p * math.log(p) for p in tenths.values() if p > 0)
    return ScoreEstimate(mean, math.sqrt(variance), max(0.0, 1 - mass), tenths, entropy)
