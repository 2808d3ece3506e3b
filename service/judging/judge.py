"""Scores and preferences out of the engine behind the gate. Every answer comes from one version, and names it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from PIL.Image import Image

from service.contract import (
    CompareOptions,
    CompareResponse,
    ImageSize,
    Mode,
    Options,
    ScoreOptions,
    ScoreProbability,
    ScoreResponse,
    VersionInfo,
)
from service.engine.protocol import Engine
from service.engine.traffic import Traffic
from service.images.picture import Picture
from service.judging.cache import AnswerCache, key_of
from service.judging.estimates import DEFAULT_SAMPLES, VoteEstimate, chosen_mode
from service.judging.expected import Expected
from service.judging.preference import either_order
from service.judging.sampled import Sampled
from service.observability import metrics
from service.observability.stages import stage
from service.prompts import PROFILES
from service.together import together
from service.versions.gate import VersionGate


class Judge:
    """Lets requests through the gate. `hold` is for those that ask more than once of the same version."""

    def __init__(self, engine: Engine, gate: VersionGate, traffic: Traffic, model: str, cache: AnswerCache) -> None:
        self._engine = engine
        self._gate = gate
        self._traffic = traffic
        self._model = model
        self._cache = cache

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[HeldJudge]:
        """Waits until the gate is open; until the block ends no swap begins. Never hold twice in one request."""
        async with AsyncExitStack() as gate:
            with stage("queue"):
                version = await gate.enter_async_context(self._gate.hold())
            gate.enter_context(self._traffic.user())
            yield HeldJudge(self._engine, version, self._model, self._cache)

    def knows(self, picture: Picture, options: ScoreOptions) -> bool:
        """Whether the serving version's score is in the cache. Raises InvalidRequest as `score`."""
        return key_of(ScoreResponse, self._gate.version, [picture], options) in self._cache

    async def score(self, picture: Picture, options: ScoreOptions) -> ScoreResponse:
        """The quality of one image. Raises InvalidImage; InvalidRequest if the serving profile lacks the mode."""
        known = self._cache.get(key_of(ScoreResponse, self._gate.version, [picture], options))
        if known is not None:
            return known
        await picture.pixels()  # before the gate: a swap waits for all that are behind it
        async with self.hold() as held:
            return await held.ask_score(picture, options)

    async def compare(self, first: Picture, second: Picture, options: CompareOptions) -> CompareResponse:
        """Which of two images looks better, asked in both orders of presentation. Raises as `score`."""
        known = self._cache.get(key_of(CompareResponse, self._gate.version, [first, second], options))
        if known is not None:
            return known
        await together(first.pixels(), second.pixels())
        async with self.hold() as held:
            return await held.ask_compare(first, second, options)


class HeldJudge:
    """Judges with one version of the weights. `score` and `compare` look into the cache first."""

    def __init__(self, engine: Engine, version: VersionInfo, model: str, cache: AnswerCache) -> None:
        self._engine = engine
        self._expected = Expected(engine)
        self._sampled = Sampled(engine)
        self._profile = PROFILES[version.profile]
        self._cache = cache
        self.version = version
        self.model = model

    def mode(self, options: Options) -> Mode:
        """The mode a request gets. Raises InvalidRequest."""
        return chosen_mode(options, self._profile)

    async def score(self, picture: Picture, options: ScoreOptions) -> ScoreResponse:
        """See `Judge.score`."""
        known = self._cache.get(key_of(ScoreResponse, self.version, [picture], options))
        return known if known is not None else await self.ask_score(picture, options)

    async def compare(self, first: Picture, second: Picture, options: CompareOptions) -> CompareResponse:
        """See `Judge.compare`."""
        known = self._cache.get(key_of(CompareResponse, self.version, [first, second], options))
        return known if known is not None else await self.ask_compare(first, second, options)

    async def ask_score(self, picture: Picture, options: ScoreOptions) -> ScoreResponse:
        """Asks the engine, and keeps the answer where it is repeatable."""
        image, mode = await picture.pixels(), self.mode(options)
        with stage("infer"):
            if mode == "expected":
                estimate = await self._expected.score(self.version, image)
            else:
                estimate = await self._sampled.score(self.version, image, options, options.samples or DEFAULT_SAMPLES)
        metrics.count_answers("score", estimate.samples, estimate.unreadable)
        bars = [ScoreProbability(score=score, probability=p) for score, p in estimate.distribution.items()]
        answer = ScoreResponse(
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
        self._cache.put(key_of(ScoreResponse, self.version, [picture], options), answer)
        return answer

    async def ask_compare(self, first: Picture, second: Picture, options: CompareOptions) -> CompareResponse:
        """Asks the engine in both orders, and keeps the answer where it is repeatable."""
        mode = self.mode(options)
        samples = (options.samples or DEFAULT_SAMPLES) if mode == "sampled" else None
        one, other = await together(first.pixels(), second.pixels())
        with stage("infer"):
            straight, crossed = await together(
                self._vote((one, other), options, samples, order=0),
                self._vote((other, one), options, samples, order=1),
            )
        answer = CompareResponse(
            **either_order(straight, crossed, options.margin, samples),
            mode=mode,
            samples=samples,
            images=[self.size(one), self.size(other)],
            model=self.model,
            version=self.version.id,
        )
        metrics.count_answers("compare", samples, answer.unreadable)
        self._cache.put(key_of(CompareResponse, self.version, [first, second], options), answer)
        return answer

    def size(self, image: Image) -> ImageSize:
        """A picture's size, and the one the model's processor scales it to."""
        seen = self._engine.seen_size(*image.size) or (None, None)
        return ImageSize(width=image.width, height=image.height, seen_width=seen[0], seen_height=seen[1])

    async def _vote(
        self, shown: tuple[Image, Image], options: CompareOptions, samples: int | None, order: int
    ) -> VoteEstimate:
        if samples is None:
            return await self._expected.vote(self.version, shown)
        return await self._sampled.vote(self.version, shown, options, samples // 2, order)
