"""The callers of a soak, and what they saw. Questions are few and their answers exact, so that each can be checked.

Each set of callers runs in a process of its own. Nothing is retried, but pictures of a batch that a swap divided.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from evoquality import calls
from evoquality.contract import CompareResponse, RankResponse, ScoreBatchResponse, ScoreOptions, ScoreResponse
from service.api.watch import TIMEOUT_HEADER

Photographs = Sequence[bytes]
Values = dict[str, Any]
BATCHES = (11, 25)
"""Photographs in a batch, in turn."""
SAMPLED = ScoreOptions(samples=4, seed=7)
HASTY_MS = 400
_TIMEOUT_SECONDS = 90.0
_SWAPPING = "swapping"


@dataclass(frozen=True)
class Question:
    """A request: its kind, its call, and the name of each value that its answer has."""

    kind: str
    call: calls.Call[Any]
    names: tuple[str, ...]


@dataclass
class Seen:
    """A request and its answer; times of the monotonic clock. `status` 0: there was none."""

    kind: str
    sent: float
    received: float = 0.0
    status: int = 0
    versions: set[str] = field(default_factory=set)
    values: Values = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)
    """Status and code of what was refused: the request, or pictures of a batch."""
    divided: list[int] = field(default_factory=list)
    """Positions of a batch's pictures that another version would have answered; they are sent again."""


@dataclass(frozen=True)
class Questions:
    """Everything that is ever asked, by the files of photographs and of small pictures."""

    photographs: Photographs
    small: Sequence[bytes]

    def scores(self) -> list[Question]:
        """Scores of small pictures, exact ones and sampled ones with a seed."""
        exact = [Question("score", calls.score(image), (f"small {n}",)) for n, image in enumerate(self.small)]
        sampled = [
            Question("score", calls.score(image, SAMPLED), (f"sampled {n}",)) for n, image in enumerate(self.small[::4])
        ]
        return exact + sampled

    def compares(self) -> list[Question]:
        """Comparisons of small pictures."""
        return [self._compare("small", self.small, n) for n in range(len(self.small))]

    def ranks(self) -> list[Question]:
        """Ranks of five small pictures."""
        windows = [range(start, start + 5) for start in range(0, len(self.small) - 4, 5)]
        return [Question("rank", calls.rank([self.small[n] for n in each]), (f"rank {each}",)) for each in windows]

    def photographs_alone(self) -> list[Question]:
        """Scores of photographs."""
        return [Question("photo", calls.score(each), (f"photo {n}",)) for n, each in enumerate(self.photographs)]

    def photographs_in_pairs(self) -> list[Question]:
        """Comparisons of photographs."""
        return [self._compare("photo", self.photographs, n) for n in range(0, len(self.photographs), 4)]

    def batch(self, numbers: Sequence[int]) -> Question:
        """A batch of photographs."""
        images = [self.photographs[n] for n in numbers]
        return Question("batch", calls.score_batch(images), tuple(f"photo {n}" for n in numbers))

    def whole(self) -> list[Question]:
        """All of them, each once; a batch has the values of its photographs."""
        small = [*self.scores(), *self.compares(), *self.ranks()]
        return [*small, *self.photographs_alone(), *self.photographs_in_pairs()]

    def _compare(self, name: str, images: Sequence[bytes], number: int) -> Question:
        pair = images[number], images[(number + 1) % len(images)]
        return Question("compare", calls.compare(*pair), (f"{name} {number} against the next",))


async def ask(client: httpx.AsyncClient, question: Question, headers: Mapping[str, str] | None = None) -> Seen:
    """Sends a request once."""
    seen = Seen(question.kind, time.monotonic())
    call = question.call
    try:
        response = await client.request(call.method, call.path, headers=headers, **call.body)
        seen.status = response.status_code
        if response.is_success:
            _read(seen, call.answer.model_validate_json(response.content), question.names)
        else:
            seen.problems.append((response.status_code, response.json().get("code", "")))
    except (httpx.HTTPError, ValueError) as failure:
        seen.problems.append((0, f"{type(failure).__name__}: {failure}"))
    seen.received = time.monotonic()
    return seen


def _read(seen: Seen, answer: Any, names: Sequence[str]) -> None:
    seen.versions.add(answer.version)
    if isinstance(answer, ScoreBatchResponse):
        for name, item in zip(names, answer.results, strict=True):
            if item.problem and item.problem.code == _SWAPPING:
                seen.divided.append(item.index)
            elif item.problem:
                seen.problems.append((item.problem.status, item.problem.code))
            elif item.result:
                _read(seen, item.result, [name])
    elif isinstance(answer, ScoreResponse):
        seen.values[names[0]] = answer.score
    elif isinstance(answer, CompareResponse):
        seen.values[names[0]] = answer.probability_first
    elif isinstance(answer, RankResponse):
        seen.values[names[0]] = [image.model_dump() for image in answer.ranking]


def promotion(version: str) -> Question:
    """The promotion of a version, on the operators' port."""
    return Question("promotion", calls.promote(version), ())


def ask_once(url: str, key: str, question: Question) -> Seen:
    """Sends an operator's request, and waits for its answer."""

    async def asked() -> Seen:
        async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_SECONDS) as client:
            return await ask(client, question, {"Authorization": f"Bearer {key}"})

    return asyncio.run(asked())


async def cold(url: str, questions: Questions) -> dict[str, Any]:
    """The value of every question, asked one after the other. Raises ValueError if one has none."""
    found: dict[str, Any] = {}
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_SECONDS) as client:
        for question in questions.whole():
            seen = await ask(client, question)
            if None in seen.values.values() or set(seen.values) != set(question.names):
                raise ValueError(f"no cold value of {question.names}: {seen.problems}")
            found |= seen.values
    return found


def light(url: str, questions: Questions, seconds: float) -> list[Seen]:
    """Small requests: scores, exact and sampled, comparisons, ranks."""
    return asyncio.run(_light(url, questions, seconds))


async def _light(url: str, questions: Questions, seconds: float) -> list[Seen]:
    kinds = [*[questions.scores()] * 3, questions.compares(), questions.ranks()]
    turned = [asked[7 * number % len(asked) :] + asked[: 7 * number % len(asked)] for number, asked in enumerate(kinds)]
    async with _callers(url, seconds) as (client, seen, until), asyncio.TaskGroup() as group:
        for asked in turned:
            group.create_task(_in_turn(client, seen, until, itertools.cycle(asked), pause=0.05))
    return seen


def heavy(url: str, questions: Questions, seconds: float) -> list[Seen]:
    """Photographs: batches, comparisons and scores, and callers that hang up or leave too little time."""
    return asyncio.run(_heavy(url, questions, seconds))


async def _heavy(url: str, questions: Questions, seconds: float) -> list[Seen]:
    alone, pairs = (
        itertools.cycle(asked) for asked in (questions.photographs_alone(), questions.photographs_in_pairs())
    )
    others = (question for pair in zip(alone, pairs, strict=True) for question in pair)
    async with _callers(url, seconds) as (client, seen, until), asyncio.TaskGroup() as group:
        group.create_task(_batches(client, seen, until, questions))
        group.create_task(_in_turn(client, seen, until, others, pause=0.5))
        group.create_task(_impatient(client, seen, until, questions))
    return seen


@asynccontextmanager
async def _callers(url: str, seconds: float) -> AsyncIterator[tuple[httpx.AsyncClient, list[Seen], float]]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_SECONDS, limits=limits) as client:
        yield client, [], time.monotonic() + seconds


async def _in_turn(
    client: httpx.AsyncClient, seen: list[Seen], until: float, asked: Iterable[Question], pause: float
) -> None:
    for question in asked:
        if time.monotonic() > until:
            return
        seen.append(await ask(client, question))
        await asyncio.sleep(pause)


async def _batches(client: httpx.AsyncClient, seen: list[Seen], until: float, questions: Questions) -> None:
    numbers = itertools.cycle(range(len(questions.photographs)))
    for count in itertools.cycle(BATCHES):
        asked = list(itertools.islice(numbers, count))
        while asked and time.monotonic() < until:
            seen.append(await ask(client, questions.batch(asked)))
            asked = [asked[position] for position in seen[-1].divided]
        if asked:
            return


async def _impatient(client: httpx.AsyncClient, seen: list[Seen], until: float, questions: Questions) -> None:
    """Hangs up on batches at any moment, and gives comparisons of photographs too little time."""
    dice = random.Random(0)
    batch, pairs = questions.batch(range(min(BATCHES))), itertools.cycle(questions.photographs_in_pairs())
    while time.monotonic() < until:
        try:
            async with asyncio.timeout(dice.uniform(0.1, 2)):
                seen.append(await ask(client, batch))
        except TimeoutError:
            seen.append(Seen("hung up", time.monotonic()))
        hasty = next(pairs)
        seen.append(await ask(client, Question("hasty", hasty.call, hasty.names), {TIMEOUT_HEADER: str(HASTY_MS)}))
        await asyncio.sleep(1)


Callers = Callable[[str, Questions, float], list[Seen]]
CALLERS: tuple[Callers, ...] = (light, heavy)
