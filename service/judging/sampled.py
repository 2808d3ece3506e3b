"""The mode `sampled`: draws and reads K answers, as the paper does."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from PIL.Image import Image

from evoquality.contract import VersionInfo
from service.answers import parse_score, parse_vote
from service.engine.protocol import Engine, Prompt, Sample, Sampling, only_from
from service.judging.estimates import ScoreEstimate, VoteEstimate, in_tenths
from service.judging.plan import Draws
from service.prompts import PROFILES, Profile

T = TypeVar("T")


class Sampled:
    """Estimates from sampled answers. Unreadable answers are counted, never replaced."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def score(self, version: VersionInfo, image: Image, draws: Draws, texts: bool) -> ScoreEstimate:
        """The mean of the readable answers among the sampled answers to `c_score`."""
        prompt = Prompt("score", (image,), PROFILES[version.profile])
        samples = await self._draw(version, prompt, draws)
        found, unreadable, cut_off = _read(samples, parse_score, prompt.profile)
        return ScoreEstimate(
            score=statistics.fmean(found) if found else None,
            std=statistics.stdev(found) if len(found) > 1 else None,
            unreadable=unreadable / len(samples),
            distribution=in_tenths(Counter(found)),
            cut_off=cut_off / len(samples),
            answers=[sample.text for sample in samples] if texts else None,
        )

    async def vote(self, version: VersionInfo, shown: tuple[Image, Image], draws: Draws, texts: bool) -> VoteEstimate:
        """Sampled votes in one order of presentation."""
        prompt = Prompt("compare", shown, PROFILES[version.profile])
        samples = await self._draw(version, prompt, draws)
        votes, unreadable, cut_off = _read(samples, parse_vote, prompt.profile)
        answers = [sample.text for sample in samples] if texts else None
        return VoteEstimate(votes.count(0), votes.count(1), unreadable, cut_off, answers)

    async def _draw(self, version: VersionInfo, prompt: Prompt, draws: Draws) -> list[Sample]:
        sampling = Sampling(draws.count, draws.temperature, draws.seed, limit=draws.limit)
        return only_from(version.id, await self._engine.generate(prompt, sampling)).samples


def _read(
    samples: Sequence[Sample], parse: Callable[[str, Profile], T | None], profile: Profile
) -> tuple[list[T], int, int]:
    """What the readable answers say, and the numbers of the unreadable ones and of those cut off.

    A plain answer is never cut off: its length is a part of its format.
    """
    found = [(parse(sample.text, profile), sample.finish_reason == "length") for sample in samples]
    cut_off = sum(said is None and late and profile.thinks for said, late in found)
    known = [said for said, _ in found if said is not None]
    return known, len(samples) - len(known) - cut_off, cut_off
