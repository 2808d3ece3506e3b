"""Batches of sampled answers for the trainer, with the log-probability of every token for GRPO."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from PIL.Image import Image

from evoquality.contract import Completion, RolloutPrompt, RolloutRequest, RolloutResponse, RolloutResult, VersionInfo
from service.concurrency import gather
from service.engine.protocol import Adapter, Engine, Generation, Prompt, Sampling, only_from
from service.engine.traffic import Traffic
from service.errors import InvalidRequest, VersionConflict
from service.prompts import PICTURES, PROFILES
from service.versions.adapters import Adapters
from service.versions.swap_lock import SwapLock


class Rollouts:
    """Asks the engine at the priority of the batch."""

    def __init__(self, engine: Engine, swap_lock: SwapLock, traffic: Traffic, adapters: Adapters) -> None:
        self._engine = engine
        self._swap_lock = swap_lock
        self._traffic = traffic
        self._adapters = adapters

    async def answer(self, request: RolloutRequest, images: Mapping[str, Image]) -> RolloutResponse:
        """Answers a batch by one version and one adapter. Raises as `run`."""
        found: dict[int, RolloutResult] = {}
        version = await self.run(request, images, lambda version: None, found.__setitem__)
        results = [found[index] for index in range(len(request.prompts))]
        return RolloutResponse(results=results, adapter=request.adapter, version=version)

    async def run(
        self,
        request: RolloutRequest,
        images: Mapping[str, Image],
        begun: Callable[[str], None],
        finished: Callable[[int, RolloutResult], None],
    ) -> str:
        """As `answer`: tells the version before it asks the engine, and the result of each prompt as it is ready.

        Raises VersionConflict, UnknownAdapter, Swapping, and InvalidRequest if a prompt's images do not fit its task.
        """
        _check_prompts(request.prompts, images)

        async with self._swap_lock.giving_way() as version, self._adapters.use(request.adapter) as adapter:
            if request.version not in (None, version.id):
                raise VersionConflict(f"The active version is {version.id}.")
            begun(version.id)

            async def ask(index: int, prompt: RolloutPrompt) -> None:
                finished(index, await self._ask(version, prompt, images, request, adapter))

            await gather(*(ask(index, prompt) for index, prompt in enumerate(request.prompts)))
        return version.id

    async def _ask(
        self,
        version: VersionInfo,
        asked: RolloutPrompt,
        images: Mapping[str, Image],
        request: RolloutRequest,
        adapter: Adapter | None,
    ) -> RolloutResult:
        shown = tuple(images[key] for key in asked.images)
        prompt = Prompt(asked.task, shown, PROFILES[asked.profile or version.profile])
        sampling = Sampling(
            asked.samples, request.temperature, asked.seed, request.logprobs, limit=request.max_answer_tokens
        )
        async with self._traffic.rollout(asked.samples):
            generation = await self._engine.generate(prompt, sampling, adapter=adapter, priority=request.priority)
        return _result(only_from(version.id, generation), request.logprobs)


def _check_prompts(prompts: Sequence[RolloutPrompt], images: Mapping[str, Image]) -> None:
    for index, prompt in enumerate(prompts):
        if len(prompt.images) != PICTURES[prompt.task]:
            raise InvalidRequest(f"prompts.{index}: score takes one image, compare takes two.")
        if prompt.profile not in (None, *PROFILES):
            raise InvalidRequest(f"prompts.{index}: no profile {prompt.profile!r}; there are {', '.join(PROFILES)}.")
        if not images.keys() >= set(prompt.images):
            raise InvalidRequest(f"prompts.{index} names an image that `images` does not contain.")


def _result(generation: Generation, logprobs: bool) -> RolloutResult:
    return RolloutResult(
        prompt_token_ids=generation.prompt_token_ids if logprobs else [],
        completions=[Completion.model_validate(sample, from_attributes=True) for sample in generation.samples],
    )
