"""Scores and comparisons. Every answer comes from one version of the weights, and names it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from PIL.Image import Image
from pydantic import BaseModel

from evoquality.contract import (
    CompareOptions,
    CompareResponse,
    ImageSize,
    Options,
    ScoreOptions,
    ScoreProbability,
    ScoreResponse,
    VersionInfo,
)
from service.concurrency import gather
from service.engine.protocol import Engine, Prompt
from service.engine.traffic import Traffic
from service.images.decoder import Picture
from service.judging.cache import AnswerCache, key_of
from service.judging.estimates import VoteEstimate, combine_orders
from service.judging.expected import Expected
from service.judging.plan import Plan, planned, wants_text
from service.judging.sampled import Sampled
from service.observability import metrics
from service.observability.metrics import stage
from service.prompts import PROFILES
from service.versions.swap_lock import SwapLock

Answer = TypeVar("Answer", bound=BaseModel)
Asked = TypeVar("Asked", bound=Options)


class Judge:
    """Answers users' requests from the cache or the engine. `model` is the name that answers give."""

    def __init__(self, engine: Engine, swap_lock: SwapLock, traffic: Traffic, model: str, cache: AnswerCache) -> None:
        self.model = model
        self._engine = engine
        self._expected = Expected(engine)
        self._sampled = Sampled(engine)
        self._swap_lock = swap_lock
        self._traffic = traffic
        self._cache = cache

    @asynccontextmanager
    async def session(self) -> AsyncIterator[VersionInfo]:
        """Waits for a running swap, then yields the version that answers until the block ends. Never nest it."""
        async with AsyncExitStack() as stack:
            with stage("queue"):
                version = await stack.enter_async_context(self._swap_lock.shared())
            stack.enter_context(self._traffic.user())
            yield version

    async def score(self, picture: Picture, options: ScoreOptions, version: VersionInfo | None = None) -> ScoreResponse:
        """The quality of one image, by the `version` of a running session or in a session of its own.

        Raises InvalidImage; InvalidRequest if the version's profile lacks the mode.
        """
        return await self._answer(ScoreResponse, [picture], options, version, self._ask_score)

    async def prepare(self, picture: Picture, options: ScoreOptions, turn: asyncio.Lock) -> None:
        """Does what needs no weights of a score that is asked next, unless the score is known; the last part in `turn`.

        Waits for a running swap, whose canaries must not wait for this. Raises InvalidImage.
        """
        if key_of(ScoreResponse, self._swap_lock.version, [picture], options) in self._cache:
            return
        image = await picture.pixels()
        async with turn:
            await self._swap_lock.wait_until_open()
            await self._engine.prepare(Prompt("score", (image,), PROFILES[self._swap_lock.version.profile]))

    async def compare(
        self, first: Picture, second: Picture, options: CompareOptions, version: VersionInfo | None = None
    ) -> CompareResponse:
        """Which of two images looks better, asked in both orders of presentation. As `score` otherwise."""
        return await self._answer(CompareResponse, [first, second], options, version, self._ask_compare)

    def size(self, image: Image, version: VersionInfo) -> ImageSize:
        """A picture's own size, and the size at which a version sees it."""
        seen = self._engine.seen_size(*image.size, PROFILES[version.profile]) or (None, None)
        return ImageSize(width=image.width, height=image.height, seen_width=seen[0], seen_height=seen[1])

    async def _answer(
        self,
        kind: type[Answer],
        pictures: Sequence[Picture],
        options: Asked,
        version: VersionInfo | None,
        ask: Callable[[Sequence[Image], Asked, VersionInfo, Sequence[str]], Awaitable[Answer]],
    ) -> Answer:
        key = key_of(kind, version or self._swap_lock.version, pictures, options)
        known = self._cache.get(key)
        if known is not None:
            return known
        images = await gather(*(picture.pixels() for picture in pictures))
        if version is None:  # only now, with the pixels at hand: a swap waits for every session
            async with self.session() as version:
                return await self._answer(kind, pictures, options, version, ask)
        answer = await ask(images, options, version, [picture.digest for picture in pictures])
        self._cache.put(key, answer)
        return answer

    async def _ask_score(
        self, images: Sequence[Image], options: ScoreOptions, version: VersionInfo, digests: Sequence[str]
    ) -> ScoreResponse:
        [image] = images
        plan, texts = planned(options, PROFILES[version.profile], digests), wants_text(options)
        with stage("infer"):
            if plan.samples and plan.draws:
                estimate = await self._sampled.score(version, image, plan.draws, texts)
            else:
                estimate = await self._expected.score(version, image, plan.draws, texts)
        metrics.count_answers("score", plan.count, estimate.unreadable, estimate.cut_off)
        bars = [ScoreProbability(score=score, probability=p) for score, p in estimate.distribution.items()]
        return ScoreResponse(
            score=estimate.score,
            std=estimate.std,
            entropy=estimate.entropy,
            mode=plan.mode,
            samples=plan.samples,
            thoughts=plan.thoughts,
            seed=plan.seed,
            unreadable=estimate.unreadable,
            cut_off=estimate.cut_off,
            distribution=bars if options.distribution else None,
            answers=None if estimate.answers is None else list(estimate.answers),
            image=self.size(image, version),
            model=self.model,
            version=version.id,
        )

    async def _ask_compare(
        self, images: Sequence[Image], options: CompareOptions, version: VersionInfo, digests: Sequence[str]
    ) -> CompareResponse:
        first, second = images
        plan, texts = planned(options, PROFILES[version.profile], digests), wants_text(options)
        swapped = int(digests[0] > digests[1])  # the same pair gets the same answers, whichever picture is named first
        with stage("infer"):
            straight, crossed = await gather(
                self._vote(version, (first, second), plan, texts, order=swapped),
                self._vote(version, (second, first), plan, texts, order=1 - swapped),
            )
        estimate = combine_orders(straight, crossed, plan.samples)
        metrics.count_answers("compare", plan.count, estimate.unreadable, estimate.cut_off)
        return CompareResponse(
            preferred=estimate.preferred(options.margin),
            probability_first=estimate.probability_first,
            position_bias=estimate.position_bias,
            votes=estimate.votes,
            unreadable=estimate.unreadable,
            cut_off=estimate.cut_off,
            orders=estimate.orders,
            mode=plan.mode,
            samples=plan.samples,
            thoughts=plan.thoughts,
            seed=plan.seed,
            images=[self.size(image, version) for image in images],
            model=self.model,
            version=version.id,
        )

    async def _vote(
        self, version: VersionInfo, shown: tuple[Image, Image], plan: Plan, texts: bool, order: int
    ) -> VoteEstimate:
        draws = plan.draws.in_order(order) if plan.draws else None
        if plan.samples and draws:
            return await self._sampled.vote(version, shown, draws, texts)
        return await self._expected.vote(version, shown, draws, texts)
