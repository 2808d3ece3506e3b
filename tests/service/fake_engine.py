"""An engine without a model, for the tests of what stands around one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from service.engine.protocol import END, UNNAMED, Adapter, Generation, Paths, Prompt, Sample, Sampling, Step
from service.errors import EngineDead

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

    async def prepare(self, prompt: Prompt) -> None:
        """There is nothing to scale."""

    async def generate(
        self, prompt: Prompt, sampling: Sampling, *, adapter: Adapter | None = None, priority: int = 0
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
        logprobs = [self.logprobs.get(version, -0.5)] if sampling.logprobs else []
        samples = [Sample(text, [1], logprobs, "stop") for text in texts]
        return Generation([1, 2, 3], samples, frozenset({version, self.version}))

    async def follow(
        self, prompt: Prompt, beginnings: Sequence[str], tokens: Sequence[str], steps: int, *, priority: int = 0
    ) -> Paths:
        """As certain as a model can be of what `answer` would say."""
        generation = await self.generate(prompt, Sampling(1), priority=priority)
        text = generation.samples[0].text
        return Paths([_path(text, beginning, tokens, steps) for beginning in beginnings], generation.versions)

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

    def seen_size(self, width: int, height: int) -> tuple[int, int]:
        return width // 28 * 28, height // 28 * 28

    def dead(self) -> bool:
        return self.is_dead

    def shutdown(self) -> None:
        self.is_dead = True


def _path(text: str, beginning: str, tokens: Sequence[str], steps: int) -> list[Step]:
    """Character by character along `text`, or straight to the end where `text` begins otherwise."""
    rest = text[len(beginning) :] if text.startswith(beginning) else ""
    path = []
    for taken in [*rest, END][:steps]:
        others = {token: 0.01 / len(tokens) for token in tokens}
        path.append(Step(taken if taken in tokens else UNNAMED, others | {taken: 0.99} if taken in tokens else others))
    return path
