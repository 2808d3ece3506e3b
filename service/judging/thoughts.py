"""The thoughts of a model that thinks, sampled to where the answer begins."""

from __future__ import annotations

from dataclasses import dataclass, replace

from evoquality.contract import VersionInfo
from service.concurrency import gather
from service.engine.protocol import Engine, Prompt, Sample, Sampling, only_from
from service.judging.plan import Draws, derived_seed
from service.prompts import THOUGHT_END


@dataclass(frozen=True, slots=True)
class Thought:
    """A thought: its text, and its tokens up to the answer, None if it never opens one.

    `cut_off`: the limit of tokens ended it before.
    """

    text: str
    tokens: tuple[int, ...] | None = None
    cut_off: bool = False


class Thoughts:
    """Samples thoughts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def sample(self, version: VersionInfo, prompt: Prompt, draws: Draws, priority: int = 0) -> list[Thought]:
        """`draws.count` thoughts. Nothing is generated behind the opening of an answer."""
        sampling = Sampling(draws.count, draws.temperature, draws.seed, limit=draws.limit, stop=prompt.profile.opening)
        generation = await self._engine.generate(prompt, sampling, priority=priority)
        samples = only_from(version.id, generation).samples
        ended = (self._ended(version, prompt, one, sampling, priority, place) for place, one in enumerate(samples))
        return await gather(*ended)

    async def _ended(
        self, version: VersionInfo, prompt: Prompt, sample: Sample, sampling: Sampling, priority: int, place: int
    ) -> Thought:
        """Goes on behind openings that the thought only mentions, as "the answer goes into \\boxed{}"."""
        text, tokens, mentioned = sample.text, tuple(sample.token_ids), None
        while text.endswith(prompt.profile.opening):
            if THOUGHT_END in text:
                return Thought(text, tokens)
            mentioned = Thought(text, tokens)
            seed = None if sampling.seed is None else derived_seed(sampling.seed + place, len(tokens))
            more = replace(sampling, n=1, seed=seed)
            generation = await self._engine.generate(prompt, more, begun=tokens, priority=priority)
            [sample] = only_from(version.id, generation).samples
            text, tokens = text + sample.text, tokens + tuple(sample.token_ids)
        if sample.finish_reason == "length":
            return Thought(text, cut_off=True)
        if mentioned and THOUGHT_END not in text:
            return mentioned  # it has answered without thinking
        return Thought(text)
