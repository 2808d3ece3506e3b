"""An engine without a model, for the tests of what stands around one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from service.engine.pixels import PixelLimits
from service.engine.protocol import END, UNNAMED, Adapter, Begun, Generation, Paths, Prompt, Sample, Sampling, Step
from service.errors import EngineDead, UserError
from service.prompts import Profile, max_tokens

Answer = Callable[[Prompt, Sampling, int], str]


def plain_answer(prompt: Prompt, sampling: Sampling, index: int) -> str:
    """Scores by brightness; votes for the brighter picture."""
    brightness = [image.convert("L").resize((1, 1)).getpixel((0, 0)) for image in prompt.images]
    if prompt.task == "score":
        return f"{1 + 4 * brightness[0] / 255:.2f}"
    return "1" if brightness[1] > brightness[0] else "0"


class FakeEngine:
    """Keeps the rules of the real one: nothing is answered while paused, and it dies of unknown adapters."""

    arithmetic = "float32 of a fake engine"

    def __init__(self, version: str, answer: Answer = plain_answer) -> None:
        self.version = version
        self.answer = answer
        self.seconds = 0.0
        self.bad_weights: set[str] = set()
        self.loaded: list[str] = []
        self.logprobs: dict[str, float] = {}
        self.adapters: dict[str, Adapter] = {}
        self.asked: list[tuple[Prompt, Sampling, Adapter | None, int]] = []
        self.running = 0
        self.paused = False
        self.is_dead = False
        self.failure: Exception | None = None
        self.held: asyncio.Event | None = None
        self.silent: asyncio.Event | None = None
        self.computes = False
        self.meant: dict[str, str] = {}
        """The whole answers, by their beginnings that were given with their tokens."""
        self.limits: PixelLimits | None = None
        self.no_room = False

    async def prepare(self, prompt: Prompt) -> None:
        """There is nothing to scale."""

    async def generate(
        self,
        prompt: Prompt,
        sampling: Sampling,
        *,
        begun: tuple[int, ...] = (),
        adapter: Adapter | None = None,
        priority: int = 0,
    ) -> Generation:
        if self.is_dead:
            raise EngineDead("The engine is dead.")
        assert not self.paused, "a request reached a paused engine"
        assert adapter is None or adapter.name in self.adapters, "a request named an unknown adapter"
        seen = tuple(image.resize((8, 8)) for image in prompt.images)  # the request closes its own
        self.asked.append((Prompt(prompt.task, seen, prompt.profile), sampling, adapter, priority))
        version = self.version
        self.running += 1
        try:
            await asyncio.sleep(self.seconds)
            if self.held:
                await self.held.wait()
            if self.failure:
                raise self.failure
        finally:
            self.running -= 1
        texts = [self.answer(prompt, sampling, index) for index in range(sampling.n)]
        if sampling.stop:
            parts = [self._part(text, begun, sampling) for text in texts]
            return Generation([1, 2, 3], parts, frozenset({version, self.version}))
        logprobs = [self.logprobs.get(version, -0.5)] if sampling.logprobs else []
        limit = max_tokens(prompt.task, prompt.profile, sampling.limit or 1024)
        samples = [Sample(text[:limit], [1], logprobs, "length" if len(text) > limit else "stop") for text in texts]
        return Generation([1, 2, 3], samples, frozenset({version, self.version}))

    def _part(self, whole: str, begun: tuple[int, ...], sampling: Sampling) -> Sample:
        """A part of an answer, with a token for each letter: behind `begun`, up to the next `stop` or the limit."""
        before = "".join(map(chr, begun))
        whole = self.meant.get(before, whole)
        rest, limit = whole[len(before) :], (sampling.limit or 1024) - len(before)
        text = "".join(rest.partition(sampling.stop)[:2])
        reason = "stop" if len(text) <= limit else "length"
        text = text[:limit]
        self.meant[before + text] = whole
        return Sample(text, [ord(letter) for letter in text], [], reason)

    async def follow(
        self, prompt: Prompt, beginnings: Sequence[Begun], tokens: Sequence[str], steps: int, *, priority: int = 0
    ) -> Paths:
        """As certain as a model can be of what `answer` would say, or of what it meant to say where it has begun."""
        generation = await self.generate(prompt, Sampling(1), priority=priority)
        paths = []
        for begun, text in beginnings:
            thought = "".join(map(chr, begun))
            whole = self.meant.get(thought, generation.samples[0].text).removeprefix(thought)
            paths.append(_path(whole, text, tokens, steps, prompt.profile.closing))
        return Paths(paths, generation.versions)

    async def load_adapter(self, adapter: Adapter) -> None:
        self.adapters[adapter.name] = adapter

    async def unload_adapter(self, adapter: Adapter) -> None:
        self.adapters.pop(adapter.name, None)

    async def pause(self) -> None:
        assert not self.running, "a swap began under running requests"
        self.paused = True

    async def reload(self, weights: Path, version: str) -> None:
        assert self.paused, "weights replaced under a running engine"
        self.loaded.append(version)
        if version in self.bad_weights:
            self.version = "half loaded"
            raise RuntimeError("/secret/path cannot be read")
        self.version = version
        self.adapters.clear()

    async def resume(self) -> None:
        self.paused = False

    async def probe(self) -> str:
        if self.is_dead:
            raise EngineDead("The engine is dead.")
        if self.silent:
            await self.silent.wait()
        return self.version

    def busy(self) -> bool:
        return self.computes

    def pixel_limits(self, profile: Profile) -> PixelLimits | None:
        if self.no_room:
            raise UserError("there is no room")
        return self.limits

    def seen_size(self, width: int, height: int, profile: Profile) -> tuple[int, int]:
        return width // 28 * 28, height // 28 * 28

    def dead(self) -> bool:
        return self.is_dead

    def shutdown(self) -> None:
        self.is_dead = True


def _path(text: str, beginning: str, tokens: Sequence[str], steps: int, closing: str) -> list[Step]:
    """Character by character along `text`, or straight to the end where `text` begins otherwise."""
    text = text.partition(closing)[0].rstrip() if closing else text
    rest = text[len(beginning) :] if text.startswith(beginning) else ""
    path = []
    for taken in [*rest, END][:steps]:
        others = {token: 0.01 / len(tokens) for token in tokens}
        path.append(Step(taken if taken in tokens else UNNAMED, others | {taken: 0.99} if taken in tokens else others))
    return path
