"""The interface to an inference engine. `vllm_engine.py` implements it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from PIL.Image import Image

from evoquality.contract import Task
from service.engine.pixels import PixelLimits
from service.errors import EngineFailure
from service.prompts import Profile

END = ""
"""Stands for the tokens that end an answer: the end of the text, or what the profile's closing can begin with."""

SPACES = (" ", "\n")
"""Tokens that may stand before an answer."""

UNNAMED = "\0"
"""Stands for every token whose probability was not asked for."""

Begun = tuple[tuple[int, ...], str]
"""The beginning of an answer: tokens that the engine sampled, then a text."""

Answered = TypeVar("Answered", bound="Generation | Paths")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A task over one (score) or two (compare) RGB images, asked in a profile."""

    task: Task
    images: tuple[Image, ...]
    profile: Profile


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling of answers, with top_p 1 and no top_k, so that log-probabilities are those of the distribution.

    Sample i uses `seed + i`. Log-probabilities cost time, so they are returned on request only. An answer takes up to
    `limit` tokens if its profile thinks, by default as many as the engine's settings say. Its text ends behind the
    first `stop`, if that is given, which leaves room for a score; its last token may hold more.
    """

    n: int
    temperature: float = 1.0
    seed: int | None = None
    logprobs: bool = False
    limit: int | None = None
    stop: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer; `logprobs` is empty unless asked for."""

    text: str
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Generation:
    """The answers to one prompt, and the prompt as the engine saw it, with placeholders expanded.

    `versions` are those of the weights that computed the answers, as reported by the engine.
    """

    prompt_token_ids: list[int]
    samples: list[Sample]
    versions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Step:
    """One step along the likeliest answer: its token, and the probabilities of the requested tokens."""

    taken: str
    probabilities: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Paths:
    """The likeliest continuation of each beginning, step by step to its end."""

    steps: Sequence[Sequence[Step]]
    versions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter. Its name, id and directory are never reused for other content."""

    name: str
    id: int
    path: Path


class Engine(Protocol):
    """One model with replaceable weights.

    Every method raises EngineDead once the engine has died.
    """

    @property
    def arithmetic(self) -> str:
        """The data type first, then whatever else answers depend on beside the weights."""

    async def prepare(self, prompt: Prompt) -> None:
        """Scales the pictures of a question that this request asks later, so that its answer takes less time."""

    async def generate(
        self,
        prompt: Prompt,
        sampling: Sampling,
        *,
        begun: tuple[int, ...] = (),
        adapter: Adapter | None = None,
        priority: int = 0,
    ) -> Generation:
        """Answers a prompt, going on behind the tokens `begun` of an answer; lower priorities go first.

        Raises EngineFailure if this request failed, InvalidRequest if question and answer do not fit the model.
        """

    async def follow(
        self, prompt: Prompt, beginnings: Sequence[Begun], tokens: Sequence[str], steps: int, *, priority: int = 0
    ) -> Paths:
        """Follows the likeliest answer from each of `beginnings`, all over one shared prompt.

        Each step gives the probabilities of `tokens`: texts of one token each, or END. Takes at most `steps` steps.
        Raises NotSpelled if a text is not one token of this model, or merges with what stands around an answer;
        EngineFailure if this request failed.
        """

    async def load_adapter(self, adapter: Adapter) -> None:
        """Makes an adapter ready. Raises AdapterRefused."""

    async def unload_adapter(self, adapter: Adapter) -> None:
        """Unloads an adapter that no request names any more."""

    async def pause(self) -> None:
        """Waits for running requests and empties every cache. No request may arrive until `resume`."""

    async def reload(self, weights: Path, version: str) -> None:
        """Replaces the weights of a paused engine; adapters are forgotten. Raises EngineFailure."""

    async def resume(self) -> None:
        """Ends a pause."""

    async def probe(self) -> str:
        """The version that the engine reports, asked through its own queue of work."""

    def busy(self) -> bool:
        """True if its processes computed, or wait for a disk, since the last call."""

    def pixel_limits(self, profile: Profile) -> PixelLimits | None:
        """The limits to which pictures are scaled for questions of a profile; None if unknown.

        Raises UserError if not even the smallest pictures leave room for its answers.
        """

    def seen_size(self, width: int, height: int, profile: Profile) -> tuple[int, int] | None:
        """Width and height to which a picture is scaled for questions of a profile; None if unknown."""

    def dead(self) -> bool:
        """True once the engine has died."""

    def shutdown(self) -> None:
        """Ends the engine's processes."""


def only_from(version: str, answered: Answered) -> Answered:
    """The answer, if `version` gave it. Raises EngineFailure otherwise."""
    if answered.versions != {version}:
        raise EngineFailure("The answer comes from another version than the serving one; retry.")
    return answered
