"""How full votes keep an engine: the mean number of sequences in it over `max_num_seqs`, from the first to the last.

`simulated` runs the trainer's own voters and workers against an engine whose thoughts take lognormal times, in
simulated time. `measured` reads vLLM's own gauge on a running service of a thinking model.
"""

from __future__ import annotations

import asyncio
import json
import re
import selectors
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, cast

import httpx
import numpy as np

from evoquality import AsyncClient
from evoquality.calls import Call
from evoquality.contract import Completion, ExactVotes, InfoResponse, RolloutResult, VoteProbabilities
from evoquality.lines import Line
from service.prompts import PROFILES
from service.versions.store import VersionStore
from tests.benchmarks.train.votes import demo_pool, random_pairs
from tests.engine.running import Running
from trainer.pool.pool import Pool
from trainer.settings.evolve import EvolveSettings
from trainer.voting.thoughts import ThoughtVoter
from trainer.voting.voters import SampledVoter, Voter
from trainer.voting.voters import cast as vote
from trainer.workers.spread import AsyncWorkers

Kind = Literal["thoughts", "samples"]

PLACES, SIMULATED_PAIRS, MEASURED_PAIRS = 64, 1000, 600
THOUGHT_SECONDS, THOUGHT_DEVIATION, WAY_SECONDS = 10.0, 0.5, 0.02
"""Of simulated thoughts: median, and deviation of the logarithm, as thoughts of 300 tokens have; and of a request's
way to the service and back."""
_PROFILE = PROFILES["evoquality"]
_RUNNING = re.compile(r"^vllm:num_requests_running\{.*\} (\S+)$", re.MULTILINE)
_LOOK_SECONDS = 0.5


def figures(service: Running, folder: Path) -> dict[str, float]:
    """`in_flight_share` on a running service, and of both kinds of votes in simulated time; `folder` keeps pictures."""
    return {
        "in_flight_share": measured(service, folder),
        "in_flight_share_simulated": simulated("thoughts"),
        "in_flight_share_simulated_samples": simulated("samples"),
    }


def simulated(kind: Kind, places: int = PLACES, pairs: int = SIMULATED_PAIRS, seed: int = 0) -> float:
    """The share of the `places` of a simulated engine that votes on `pairs` pairs take."""
    loop = _SimulatedTime()
    try:
        return loop.run_until_complete(_simulated(kind, places, pairs, seed))
    finally:
        loop.close()


async def _simulated(kind: Kind, places: int, pairs: int, seed: int) -> float:
    engine = _Engine(places, np.random.default_rng(seed))
    images = [f"{number:03d}" for number in range(200)]
    with tempfile.TemporaryDirectory() as folder:
        workers = AsyncWorkers(["http://simulated"], "", VersionStore(Path(folder)), 60, print)
        await workers.close()
        workers._crew.replicas[0].client = cast(AsyncClient, engine)
        await _voter(kind, cast(Pool, _Blank()), workers, "v1").ask(list(combinations(images, 2))[:pairs], engine.take)
    assert engine.decided == pairs
    return engine.share()


def _voter(kind: Kind, pool: Pool, workers: AsyncWorkers, version: str) -> Voter:
    votes, error, temperature = (
        EvolveSettings.model_fields[name].default for name in ("votes", "vote_error", "vote_temperature")
    )
    if kind == "thoughts":
        return ThoughtVoter(pool, workers, version, votes, error, temperature, seed=0)
    return SampledVoter(pool, workers, version, _PROFILE, votes, error, temperature, seed=0)


class _Blank:
    """Pictures that nobody looks at."""

    def bytes_of(self, image_id: str) -> bytes:
        return image_id.encode()

    def fingerprint(self, image_id: str) -> tuple[str, int]:
        return image_id, len(image_id)


@dataclass
class _Engine:
    """Stands in for a client and the service behind it: so many sequences at a time, first come, first served."""

    places: int
    rng: np.random.Generator
    decided: int = 0
    running: int = 0
    busy: float = 0.0
    """Sequences times seconds."""
    changed: float = 0.0

    def __post_init__(self) -> None:
        self._free = asyncio.Semaphore(self.places)

    def take(self, votes: object) -> None:
        self.decided += 1

    def share(self) -> float:
        self._count(0)
        return self.busy / (self.places * self.changed)

    async def info(self) -> InfoResponse:
        told: dict[str, Any] = dict.fromkeys(InfoResponse.model_fields)
        return InfoResponse.model_construct(**told | {"profile": _PROFILE.name, "max_num_seqs": self.places})

    async def lines(self, call: Call[Any]) -> AsyncGenerator[Line[Any], None]:
        await asyncio.sleep(WAY_SECONDS)
        yield Line()
        request = json.loads(call.body["content"])
        ready: asyncio.Queue[Line[Any]] = asyncio.Queue()
        answer: Callable[[int, Any], Any] = self._rollout if "prompts" in request else self._votes
        items = request.get("prompts") or request["pairs"]

        async def work(index: int, item: Any) -> None:
            ready.put_nowait(Line(index=index, result=await answer(index, item), version="v1"))

        async with asyncio.TaskGroup() as group:
            for index, item in enumerate(items):
                group.create_task(work(index, item))
            for _ in items:
                yield await ready.get()

    async def _rollout(self, index: int, prompt: Any) -> RolloutResult:
        await asyncio.gather(*(self._think() for _ in range(prompt["samples"])))
        preference = self._preference(prompt["images"])
        text = rf"<think>.</think> \boxed{{{int(self.rng.random() > preference)}}}"
        completion = Completion(text=text, token_ids=[], logprobs=[], finish_reason="stop")
        return RolloutResult(prompt_token_ids=[], completions=[completion])

    async def _votes(self, index: int, pair: Any) -> ExactVotes:
        await asyncio.gather(self._think(), self._think())
        first = float(self.rng.beta(4 * self._preference(pair) + 0.1, 4 - 4 * self._preference(pair) + 0.1))
        order = VoteProbabilities(first=first, second=1 - first)
        return ExactVotes(forward=order, backward=order)

    def _preference(self, pair: list[str]) -> float:
        """For the first image, evenly spread over the pairs."""
        low, high = sorted(map(int, pair))
        share = (low * 0.618 + high * 0.755) % 1
        return share if int(pair[0]) == low else 1 - share

    async def _think(self) -> None:
        async with self._free:
            self._count(1)
            await asyncio.sleep(THOUGHT_SECONDS * float(np.exp(THOUGHT_DEVIATION * self.rng.standard_normal())))
            self._count(-1)

    def _count(self, change: int) -> None:
        now = asyncio.get_running_loop().time()
        self.busy += self.running * (now - self.changed)
        self.running, self.changed = self.running + change, now


class _SimulatedTime(asyncio.SelectorEventLoop):
    """Time that passes only when there is nothing to do; threads' work takes none."""

    def __init__(self) -> None:
        selector = selectors.DefaultSelector()
        select = selector.select

        def jump(timeout: float | None = None) -> Any:
            self._now += timeout or 0.0
            return select(0 if timeout is not None else None)

        selector.select = jump  # type: ignore[method-assign]
        self._now = 0.0
        super().__init__(selector)
        self.set_default_executor(_AtOnce())

    def time(self) -> float:
        return self._now


class _AtOnce(ThreadPoolExecutor):
    """Works where it is asked."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(function(*arguments, **named))
        return done


def measured(service: Running, folder: Path, pairs: int = MEASURED_PAIRS) -> float:
    """The share on a running service, whose model votes on pairs of the demo's pool as in a round."""
    return asyncio.run(_measured(service, folder, pairs))


async def _measured(service: Running, folder: Path, pairs: int) -> float:
    pool = demo_pool(folder)
    asked = random_pairs(pool)[:pairs]
    workers = AsyncWorkers([service.operator_url], service.key, service.store, 60, print)
    try:
        voter = _voter("thoughts", pool, workers, service.active)
        pool.make(pool.missing(image for pair in asked for image in pair), lambda count: None)
        with _running(service) as mean:
            await vote(asked, voter, folder / "votes.jsonl", advance=lambda count: None)
            return mean() / service.public.info().max_num_seqs
    finally:
        await workers.close()


@contextmanager
def _running(service: Running) -> Iterator[Callable[[], float]]:
    """The mean number of sequences that vLLM has been running since."""
    seen: list[float] = []
    ended = threading.Event()

    def look() -> None:
        with httpx.Client() as client:
            while not ended.wait(_LOOK_SECONDS):
                metrics = client.get(f"{service.operator_url}/metrics").text
                seen.append(sum(map(float, _RUNNING.findall(metrics))))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield lambda: float(np.mean(seen))
    finally:
        ended.set()
        looking.join()
