"""Scores and preferences out of the engine behind the gate. Every answer comes from one version, and names it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from PIL.Image import Image

from service.contract import (
    CompareOptions,
    CompareResponse,
    ImageSize,
    ScoreOptions,
    ScoreProbability,
    ScoreResponse,
    VersionInfo,
)
from service.engine import Engine
from service.estimates import DEFAULT_SAMPLES, VoteEstimate, chosen_mode
from service.expected import Expected
from service.gate import VersionGate
from service.preference import either_order
from service.prompts import PROFILES
from service.sampled import Sampled
from service.together import together


class Judge:
    """Lets requests through the gate. `hold` is for those that ask more than once of the same version."""

    def __init__(self, engine: Engine, gate: VersionGate, model: str) -> None:
        self._engine = engine
        self._gate = gate
        self._model = model

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[HeldJudge]:
        """Waits until the gate is open; until the block ends no swap begins. Never hold twice in one request."""
        async with self._gate.hold() as version:
            yield HeldJudge(self._engine, version, self._model)

    async def score(self, image: Image, options: ScoreOptions) -> ScoreResponse:
        """The quality of one image. Raises InvalidRequest if the serving profile does not have the mode."""
        async with self.hold() as held:
            return await held.score(image, options)

    async def compare(self, first: Image, second: Image, options: CompareOptions) -> CompareResponse:
        """Which of two images looks better, asked in both orders of presentation. Raises as `score`."""
        async with self.hold() as held:
            return await held.compare(first, second, options)


class HeldJudge:
    """Judges with one version of the weights."""

    def __init__(self, engine: Engine, version: VersionInfo, model: str) -> None:
        self._engine = engine
        self._expected = Expected(engine)
        self._sampled = Sampled(engine)
        self._profile = PROFILES[version.profile]
        self.version = version
        self.model = model

    async def score(self, image: Image, options: ScoreOptions) -> ScoreResponse:
        """See `Judge.score`."""
        mode = chosen_mode(options, self._profile)
        if mode == "expected":
            estimate = await self._expected.score(self.version, image)
        else:
            estimate = await self._sampled.score(self.version, image, options, options.samples or DEFAULT_SAMPLES)
        bars = [ScoreProbability(score=score, probability=p) for score, p in estimate.distribution.items()]
        return ScoreResponse(
            score=estimate.score,
            std=estimate.std,
            entropy=estimate.entropy,
            mode=mode,
            samples=estimate.samples,
            unreadable=estimate.unreadable,
            distribution=bars if options.distribution else None,
            answers=None if estimate.answers is None else list(estimate.answers),
            image=self.size(image),
            model=self.model,
            version=self.version.id,
        )

    async def compare(self, first: Image, second: Image, options: CompareOptions) -> CompareResponse:
        """See `Judge.compare`."""
        mode = chosen_mode(options, self._profile)
        samples = (options.samples or DEFAULT_SAMPLES) if mode == "sampled" else None
        straight, crossed = await together(
            self._vote((first, second), options, samples, order=0),
            self._vote((second, first), options, samples, order=1),
        )
        return CompareResponse(
            **either_order(straight, crossed, options.margin, samples),
            mode=mode,
            samples=samples,
            images=[self.size(first), self.size(second)],
            model=self.model,
            version=self.version.id,
        )

    def size(self, image: Image) -> ImageSize:
        """A picture's size, and the one the model's processor scales it to."""
        width, height = self._engine.seen_size(*image.size)
        return ImageSize(width=image.width, height=image.height, seen_width=width, seen_height=height)

    async def _vote(
        self, shown: tuple[Image, Image], options: CompareOptions, samples: int | None, order: int
    ) -> VoteEstimate:
        if samples is None:
            return await self._expected.vote(self.version, shown)
        return await self._sampled.vote(self.version, shown, options, samples // 2, order)
