"""The mode `sampled`: draws and reads K answers, as the paper does. Models that think have only this mode."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter

from PIL.Image import Image

from evoquality.contract import Options, VersionInfo
from service.answers import parse_vote, read_scores
from service.engine.protocol import Engine, Generation, Prompt, Sampling, only_from
from service.judging.estimates import ScoreEstimate, VoteEstimate, in_tenths, wants_text
from service.observability import metrics
from service.prompts import PROFILES


class Sampled:
    """Estimates from sampled answers. Unreadable answers are counted, never replaced."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def score(self, version: VersionInfo, image: Image, options: Options, samples: int) -> ScoreEstimate:
        """The mean of the readable answers among `samples` answers to `c_score`."""
        prompt = Prompt("score", (image,), PROFILES[version.profile])
        generation = await self._draw(version, prompt, options, samples, options.seed)
        scores = read_scores([sample.text for sample in generation.samples], prompt.profile)
        metrics.unreadable.labels("score").inc(samples - len(scores))
        return ScoreEstimate(
            score=statistics.fmean(scores) if scores else None,
            std=statistics.stdev(scores) if len(scores) > 1 else None,
            unreadable=1 - len(scores) / samples,
            distribution=in_tenths(Counter(scores)),
            samples=samples,
            answers=_texts(generation, options),
        )

    async def vote(
        self, version: VersionInfo, shown: tuple[Image, Image], options: Options, samples: int, order: int
    ) -> VoteEstimate:
        """`samples` votes in one order of presentation; `order` is 0 or 1."""
        prompt = Prompt("compare", shown, PROFILES[version.profile])
        seed = None if options.seed is None else _derived(options.seed, order)
        generation = await self._draw(version, prompt, options, samples, seed)
        votes = [parse_vote(sample.text, prompt.profile) for sample in generation.samples]
        metrics.unreadable.labels("compare").inc(votes.count(None))
        return VoteEstimate(votes.count(0), votes.count(1), votes.count(None), _texts(generation, options))

    async def _draw(
        self, version: VersionInfo, prompt: Prompt, options: Options, samples: int, seed: int | None
    ) -> Generation:
        temperature = 1.0 if options.temperature is None else options.temperature
        return only_from(version.id, await self._engine.generate(prompt, Sampling(samples, temperature, seed)))


def _texts(generation: Generation, options: Options) -> list[str] | None:
    return [sample.text for sample in generation.samples] if wants_text(options) else None


def _derived(seed: int, order: int) -> int:
    """A different seed for each order, so that they do not draw the same noise."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{order}".encode()).digest()[:4]) >> 1
