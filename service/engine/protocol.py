"""What the service asks of an inference engine. `vllm_engine.py` is the real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from PIL.Image import Image

from service.contract import Task
from service.errors import EngineFailure
from service.prompts import Profile

END = ""
"""Names the token that ends an answer."""

UNNAMED = "\0"
"""Names every token that was not asked about."""

Answered = TypeVar("Answered", bound="Generation | Paths")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A task over one (score) or two (compare) RGB images, asked in a profile."""

    task: Task
    images: tuple[Image, ...]
    profile: Profile


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn: top_p 1, no top_k, so that log-probabilities are the distribution's own.

    Sample i uses `seed + i`. Log-probabilities cost time and are given only if asked for.
    """

    n: int
    temperature: float = 1.0
    seed: int | None = None
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer; `logprobs` is empty unless asked for."""

    text: str
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Generation:
    """The answers to one prompt, and the prompt as the engine saw it, placeholders expanded.

    `versions` are those of the weights that computed the answers, as the engine itself tells.
    """

    prompt_token_ids: list[int]
    samples: list[Sample]
    versions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Step:
    """One step along the likeliest answer: the token taken, and the probabilities of those asked about."""

    taken: str
    probabilities: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Paths:
    """The likeliest continuation of each beginning, step by step until its end."""

    steps: Sequence[Sequence[Step]]
    versions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter: name, id and directory are never used for other content."""

    name: str
    id: int
    path: Path


class Engine(Protocol):
    """One model with replaceable weights.

    Every method raises EngineDead once the engine has died.
    """

    async def generate(
        self, prompt: Prompt, sampling: Sampling, *, adapter: Adapter | None = None, priority: int = 0
    ) -> Generation:
        """Answers a prompt; lower priorities go first. Raises EngineFailure if this request failed."""

    async def follow(
        self, prompt: Prompt, beginnings: Sequence[str], tokens: Sequence[str], steps: int, *, priority: int = 0
    ) -> Paths:
        """Follows the likeliest answer from each of `beginnings`, all over one shared prompt.

        `tokens` are those whose probabilities are told: texts of one token each, or END. At most `steps` steps.
        Raises NotSpelled if a text is not one token of this model, EngineFailure if this request failed.
        """

    async def load_adapter(self, adapter: Adapter) -> None:
        """Makes an adapter ready. Raises AdapterRefused."""

    async def unload_adapter(self, adapter: Adapter) -> None:
        """Forgets an adapter that no request names any more."""

    async def pause(self) -> None:
        """Waits for running requests and empties every cache. No request may arrive until `resume`."""

    async def reload(self, weights: Path, version: str) -> None:
        """Replaces the weights of a paused engine; adapters are forgotten. Raises EngineFailure."""

    async def resume(self) -> None:
        """Answers again."""

    async def probe(self) -> str:
        """The version the engine itself says it serves, asked through its own queue of work."""

    def seen_size(self, width: int, height: int) -> tuple[int, int] | None:
        """To what width and height the model's own processor scales a picture; None if that is not known."""

    def dead(self) -> bool:
        """Whether the engine has died."""

    def shutdown(self) -> None:
        """Ends the engine's processes."""


def only_from(version: str, answered: Answered) -> Answered:
    """The answer, unless other weights than the gate's version gave it. Raises EngineFailure."""
    if answered.versions != {version}:
        raise EngineFailure("The answer does not come from the version that serves.")
    return answered
