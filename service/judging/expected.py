"""The mode `expected`: the model's own probabilities instead of samples. Repeatable, and cheaper than K samples."""

from __future__ import annotations

import math

import numpy as np
from PIL.Image import Image

from evoquality.contract import VersionInfo
from service.answers import MAX_SCORE, MIN_SCORE
from service.engine.protocol import END, Engine, Prompt, only_from
from service.judging.estimates import ScoreEstimate, VoteEstimate
from service.judging.score_tree import LONGEST, SCORES, TOKENS, FloatArray, ScoreTree
from service.prompts import PROFILES

VOTES = ("0", "1")


class Expected:
    """Estimates from the probabilities of an answer's tokens."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def score(self, version: VersionInfo, image: Image) -> ScoreEstimate:
        """The expected score over the model's answers to `c_score`, with standard deviation and entropy."""
        prompt = Prompt("score", (image,), PROFILES[version.profile])
        tree = ScoreTree()
        while beginnings := tree.unknown():
            steps = LONGEST - min(map(len, beginnings))
            paths = only_from(version.id, await self._engine.follow(prompt, beginnings, TOKENS, steps))
            for beginning, path in zip(beginnings, paths.steps, strict=True):
                tree.grow(beginning, path)
        return _estimate(tree.scores())

    async def vote(self, version: VersionInfo, shown: tuple[Image, Image], priority: int = 0) -> VoteEstimate:
        """The probabilities of "0" and "1" in one order of presentation."""
        prompt = Prompt("compare", shown, PROFILES[version.profile])
        followed = await self._engine.follow(prompt, [""], (*VOTES, END), steps=1, priority=priority)
        paths = only_from(version.id, followed)
        first, second = (min(1.0, paths.steps[0][0].probabilities[vote]) for vote in VOTES)
        return VoteEstimate(first, second, max(0.0, 1 - first - second))


def _estimate(probabilities: FloatArray) -> ScoreEstimate:
    """Mean, standard deviation and entropy from the (401,) probabilities of `SCORES`."""
    readable = float(probabilities.sum())
    if readable <= 0:
        return ScoreEstimate(None, None, 1.0, {})
    weights = probabilities / readable  # whose sums may exceed 1 by a rounding
    mean = min(MAX_SCORE, max(MIN_SCORE, float(weights @ SCORES)))
    std = math.sqrt(weights @ (SCORES - mean) ** 2)
    bars = np.minimum(1, np.add.reduceat(weights, np.arange(0, len(SCORES), 10)))
    tenths = dict(zip(SCORES[::10].tolist(), bars.tolist(), strict=True))
    entropy = abs(float(bars[bars > 0] @ np.log(bars[bars > 0])))
    return ScoreEstimate(mean, std, max(0.0, 1 - readable), tenths, entropy)
