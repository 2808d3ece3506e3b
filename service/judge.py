"""Scores and preferences out of sampled answers. Every answer comes from one version, and names it."""

from __future__ import annotations

import asyncio
import hashlib
import statistics
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Literal, TypeVar

from PIL.Image import Image

from service import metrics
from service.adapters import Adapters
from service.answers import parse_score, parse_vote
from service.contract import (
    CompareOptions,
    CompareResponse,
    Completion,
    OrderVotes,
    RolloutPrompt,
    RolloutRequest,
    RolloutResponse,
    RolloutResult,
    ScoreOptions,
    ScoreResponse,
    VersionInfo,
    Votes,
)
from service.engine import Adapter, Engine, Generation, Prompt, Sampling
from service.errors import EngineFailure, InvalidRequest, VersionConflict
from service.gate import VersionGate
from service.prompts import PROFILES, Profile

T = TypeVar("T")


class Judge:
    """Asks the engine behind the gate."""

    def __init__(self, engine: Engine, gate: VersionGate, adapters: Adapters, model: str) -> None:
        self._engine = engine
        self._gate = gate
        self._adapters = adapters
        self._model = model

    async def score(self, image: Image, options: ScoreOptions) -> ScoreResponse:
        """The mean of `samples` answers to `c_score`; unreadable ones are counted, never replaced."""
        async with self._gate.hold() as version:
            prompt = Prompt("score", (image,), PROFILES[version.profile])
            sampling = Sampling(options.samples, options.temperature, options.seed)
            generation = await self._ask(version, prompt, sampling)
        scores = read_scores(generation, prompt.profile)
        unreadable = options.samples - len(scores)
        metrics.unreadable.labels("score").inc(unreadable)
        return ScoreResponse(
            score=statistics.fmean(scores) if scores else None,
            std=statistics.stdev(scores) if len(scores) > 1 else None,
            samples=options.samples,
            unreadable=unreadable,
            model=self._model,
            version=version.id,
        )

    async def compare(self, first: Image, second: Image, options: CompareOptions) -> CompareResponse:
        """The majority of `samples` votes, half of them asked in each order of presentation."""
        async with self._gate.hold() as version:
            straight, crossed = await together(
                self._votes(version, (first, second), options, order=0),
                self._votes(version, (second, first), options, order=1),
            )
        votes = Votes(first=straight[0] + crossed[1], second=straight[1] + crossed[0])
        unreadable = straight[2] + crossed[2]
        metrics.unreadable.labels("compare").inc(unreadable)
        return CompareResponse(
            preferred=_majority(votes),
            votes=votes,
            unreadable=unreadable,
            samples=options.samples,
            orders=[
                OrderVotes(
                    shown_first="first",
                    votes=Votes(first=straight[0], second=straight[1]),
                    unreadable=straight[2],
                ),
                OrderVotes(
                    shown_first="second",
                    votes=Votes(first=crossed[1], second=crossed[0]),
                    unreadable=crossed[2],
                ),
            ],
            model=self._model,
            version=version.id,
        )

    async def rollouts(self, request: RolloutRequest, images: Mapping[str, Image]) -> RolloutResponse:
        """Answers a batch by one version and one adapter, with what GRPO needs to know of each token.

        Raises VersionConflict, UnknownAdapter, and InvalidRequest if a prompt's images do not fit its task.
        """
        _check_prompts(request.prompts, images)
        async with self._gate.hold() as version, self._adapters.use(request.adapter) as adapter:
            if request.version not in (None, version.id):
                raise VersionConflict(f"The active version is {version.id}.")
            generations = await together(
                *(self._rollout(version, prompt, images, request, adapter) for prompt in request.prompts)
            )
        return RolloutResponse(
            results=[_result(generation) for generation in generations],
            adapter=request.adapter,
            version=version.id,
        )

    async def _votes(
        self, version: VersionInfo, shown: tuple[Image, Image], options: CompareOptions, order: int
    ) -> tuple[int, int, int]:
        """Votes for the image shown first, for the one shown second, and unreadable answers."""
        seed = None if options.seed is None else _derived(options.seed, order)
        prompt = Prompt("compare", shown, PROFILES[version.profile])
        sampling = Sampling(options.samples // 2, options.temperature, seed)
        generation = await self._ask(version, prompt, sampling)
        votes = [parse_vote(sample.text, prompt.profile) for sample in generation.samples]
        return votes.count(0), votes.count(1), votes.count(None)

    async def _rollout(
        self,
        version: VersionInfo,
        asked: RolloutPrompt,
        images: Mapping[str, Image],
        request: RolloutRequest,
        adapter: Adapter | None,
    ) -> Generation:
        shown = tuple(images[key] for key in asked.images)
        prompt = Prompt(asked.task, shown, PROFILES[version.profile])
        sampling = Sampling(asked.samples, request.temperature, asked.seed, logprobs=True)
        return await self._ask(version, prompt, sampling, adapter, request.priority)

    async def _ask(
        self,
        version: VersionInfo,
        prompt: Prompt,
        sampling: Sampling,
        adapter: Adapter | None = None,
        priority: int = 0,
    ) -> Generation:
        """Asks the engine, and takes no answer that other weights than the gate's version gave."""
        generation = await self._engine.generate(prompt, sampling, adapter=adapter, priority=priority)
        if generation.versions != {version.id}:
            raise EngineFailure("The answer does not come from the version that serves.")
        return generation


def read_scores(generation: Generation, profile: Profile) -> list[float]:
    """The readable scores among a prompt's answers."""
    scores = (parse_score(sample.text, profile) for sample in generation.samples)
    return [score for score in scores if score is not None]


async def together(*calls: Coroutine[Any, Any, T]) -> list[T]:
    """The results in order. A failure cancels the others and waits for them: none outlives its gate."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _derived(seed: int, order: int) -> int:
    """A seed of its own for each order, or both would draw the same noise."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{order}".encode()).digest()[:4]) >> 1


def _majority(votes: Votes) -> Literal["first", "second", "tie"] | None:
    if votes.first == votes.second:
        return "tie" if votes.first else None
    return "first" if votes.first > votes.second else "second"


def _check_prompts(prompts: Sequence[RolloutPrompt], images: Mapping[str, Image]) -> None:
    for index, prompt in enumerate(prompts):
        if len(prompt.images) != (1 if prompt.task == "score" else 2):
            raise InvalidRequest(f"prompts.{index}: score takes one image, compare takes two.")
        if not images.keys() >= set(prompt.images):
            raise InvalidRequest(f"prompts.{index}: an image it names is not in the batch.")


def _result(generation: Generation) -> RolloutResult:
    return RolloutResult(
        prompt_token_ids=generation.prompt_token_ids,
        completions=[
            Completion(
                text=sample.text,
                token_ids=sample.token_ids,
                logprobs=sample.logprobs,
                finish_reason=sample.finish_reason,
            )
            for sample in generation.samples
        ],
    )
