"""The replicas of the service as rollout workers: a batch is spread over those that answer.

A replica that is dead, busy or on another version is skipped and tried again later. If none answers, the trainer waits
up to `patience` seconds; then `Unreachable` ends the round. All replicas share one version store.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from evoquality import AsyncClient, calls
from evoquality.calls import Call
from evoquality.contract import (
    ExactVotes,
    ExactVotesRequest,
    InfoResponse,
    RolloutPrompt,
    RolloutRequest,
    RolloutResult,
    SwapResponse,
)
from service.concurrency import gather
from service.versions.store import VersionStore
from trainer.errors import WrongVersion
from trainer.files import writing
from trainer.workers.crew import Asking, Crew
from trainer.workers.replica import Pictures, Replica
from trainer.workers.sizing import answer_tokens, joined, pieces

T = TypeVar("T")

_ITEMS_A_PLACE = 2
"""For each answer that the engines sample at the same time: some items always have answers to draw."""


class AsyncWorkers:
    """The asynchronous side, on one event loop."""

    def __init__(
        self,
        urls: Sequence[str],
        key: str,
        store: VersionStore,
        patience: float,
        say: Callable[[str], None],
        *,
        overwritten: bool = False,
        max_answer_tokens: int | None = None,
    ) -> None:
        """`max_answer_tokens` is that of every question; None: the service's own."""
        adapters = store.within("adapters")
        replicas = [Replica(url, AsyncClient(url, key), adapters, overwritten) for url in urls]
        self._crew = Crew(replicas, patience, say)
        self._store = store
        self._limit = max_answer_tokens

    async def replica_info(self, replicas: Sequence[Replica] | None = None) -> dict[str, InfoResponse]:
        """The `/v1/info` of replicas (by default those not in trouble), by address; waits for at least one."""

        async def ask(replica: Replica) -> tuple[str, InfoResponse]:
            return replica.url, await replica.client.info()

        return dict(await self._crew.patience.of(self._crew.each, ask, replicas))

    async def info(self) -> InfoResponse:
        """The `/v1/info` of one replica; the others should run with the same limits."""
        return next(iter((await self.replica_info()).values()))

    async def keep_full(self, items: Sequence[T], work: Callable[[T], Awaitable[None]]) -> None:
        """Works on as many items at a time as keep the engines full; each goes on by itself."""
        waiting = iter(items)

        async def go_on() -> None:
            for item in waiting:
                await work(item)

        places = sum(info.max_num_seqs for info in await self._crew.engines())
        await gather(*(go_on() for _ in range(min(_ITEMS_A_PLACE * places, len(items)))))

    async def rollouts(
        self,
        prompts: Sequence[RolloutPrompt],
        pictures: Pictures,
        *,
        version: str,
        adapter: str | None = None,
        temperature: float = 1.0,
        logprobs: bool = False,
        advance: Callable[[int], None] = lambda count: None,
    ) -> list[RolloutResult]:
        """Sampled answers to each prompt; rollout engines are first overwritten with the version.

        Args:
            prompts: any number of them; each names images of `pictures`.
            pictures: the images' files.
            version: the weights that must answer.
            adapter: a folder of the store's adapters; None: the version itself.
            temperature: of the sampling.
            logprobs: whether results carry the prompt's tokens and the answers' log-probabilities.
            advance: hears of every prompt that is answered.

        Raises:
            WrongVersion: every replica serves another version.
            Unreachable: no replica answered for too long.
            ServiceError: the request itself was refused.
        """
        engines = await self._crew.engines()
        tokens = {
            prompt.task: max(answer_tokens(info, prompt.task, self._limit) for info in engines) for prompt in prompts
        }
        asked = pieces(prompts, tokens)
        missing = Counter(index for index, _ in asked)
        found: dict[int, RolloutResult] = {}

        def call(items: Sequence[RolloutPrompt], images: Mapping[str, str], name: str | None) -> Call[Any]:
            request = RolloutRequest(
                images=dict(images),
                prompts=list(items),
                temperature=temperature,
                max_answer_tokens=self._limit,
                adapter=name,
                version=version,
                logprobs=logprobs,
            )
            return calls.rollouts(request)

        async def ready(replica: Replica) -> str | None:
            await replica.overwrite(version)
            return await replica.own_name(adapter)

        def finished(place: int, result: RolloutResult) -> None:
            found[place] = result
            missing[asked[place][0]] -= 1
            advance(int(not missing[asked[place][0]]))

        asking = Asking(lambda prompt: prompt.images, lambda prompt: prompt.samples, call, ready)
        items = [prompt for _, prompt in asked]
        await self._crew.spread(items, asking, max(tokens.values(), default=1), pictures, finished)
        return joined(asked, found)

    async def exact_votes(
        self,
        pairs: Sequence[tuple[str, str]],
        pictures: Pictures,
        finished: Callable[[int, ExactVotes], None],
        *,
        version: str,
        thought: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        """The probabilities of both votes on any number of pairs of `pictures`; `finished` gets each pair's position
        and votes as they come. Raises as `rollouts`.

        Of a model that thinks, they are those behind thought number `thought` of each order, sampled at `temperature`
        with `seed`.
        """
        engines = await self._crew.engines()
        tokens = max(answer_tokens(info, "compare", self._limit) for info in engines)

        def call(items: Sequence[tuple[str, str]], images: Mapping[str, str], _: str | None) -> Call[Any]:
            request = ExactVotesRequest(
                images=dict(images),
                pairs=list(items),
                first_thought=thought,
                temperature=temperature,
                seed=seed,
                max_answer_tokens=self._limit,
                version=version,
            )
            return calls.exact_votes(request)

        async def ready(replica: Replica) -> None:
            return None

        await self._crew.spread(pairs, Asking(tuple, lambda pair: 2, call, ready), tokens, pictures, finished)

    async def load_adapter(self, name: str) -> None:
        """Loads `<store>/adapters/<name>` on the replicas that answer now; the others load it when they are asked."""

        async def load(replica: Replica) -> str | None:
            return await replica.own_name(name)

        await self._crew.patience.of(self._crew.each, load)

    async def unload_adapter(self, name: str) -> None:
        """Unloads an adapter everywhere, without waiting for replicas that do not answer."""
        await gather(*(replica.unload(name) for replica in self._crew.replicas))

    async def remove_adapter(self, own_name: str) -> None:
        """Unloads an adapter that an earlier process left loaded, by the replica's own name for it."""
        await gather(*(replica.remove(own_name) for replica in self._crew.replicas))

    async def promote(self, version: str, instead_of: str) -> tuple[SwapResponse, list[str]]:
        """Promotes on one replica after the other, so that the rest keep answering.

        First come the replicas that do not follow the store's pointer; they test the version. Then the pointer is
        moved, unless one of them has done it. Last come the followers, so that they swap at once.

        Returns:
            The first replica's swap, and the addresses of those that have not swapped.

        Raises:
            WrongVersion: somebody has moved the pointer to a third version; it is left there.
            Unreachable: no replica answered for too long.
            ServiceError: a replica refused the version.
            DiskFull: the pointer could not be moved.
        """
        infos = await self.replica_info(self._crew.replicas)
        leading, following = ([url for url in infos if infos[url].follows == follows] for follows in (False, True))
        swaps = await self._promote_on(leading, version)
        await asyncio.to_thread(self._point_at, version, instead_of)
        swaps |= await self._promote_on(following, version)
        return next(iter(swaps.values())), [replica.url for replica in self._crew.replicas if replica.url not in swaps]

    async def roll_back(self, version: str, instead_of: str) -> list[str]:
        """As `promote`, for a version that has served before, but the pointer moves first: a follower that cannot load
        the version it names may be unreachable until then.

        Returns:
            The addresses of those that have not swapped.
        """
        await asyncio.to_thread(self._point_at, version, instead_of)
        return (await self.promote(version, instead_of))[1]

    async def begin_with(self, version: str) -> None:
        """Promotes a version on the rollout engines that do not hold it; they do not follow the store."""

        async def take(replica: Replica) -> str:
            info = await replica.client.info()
            if info.role == "rollout" and info.version != version:
                await replica.promote(version)
            return replica.url

        await self._crew.patience.of(self._crew.each, take)

    async def close(self) -> None:
        """Closes the connections."""
        await gather(*(replica.client.close() for replica in self._crew.replicas))

    def _point_at(self, version: str, instead_of: str) -> None:
        active = self._store.active()
        named = active.version if active else "nothing"
        if named not in {version, instead_of}:
            raise WrongVersion(
                f"somebody moved the store's pointer to {named} while {version} was to replace {instead_of}; promote "
                f"{instead_of} again to resume, or start a new run"
            )
        with writing(self._store.root / "ACTIVE"):
            self._store.activate(version)

    async def _promote_on(self, urls: Collection[str], version: str) -> dict[str, SwapResponse]:
        """The swaps of the replicas that swapped, by address; waits until at least one has."""
        replicas = [replica for replica in self._crew.replicas if replica.url in urls]

        async def promote(replica: Replica) -> tuple[str, SwapResponse]:
            return replica.url, await replica.promote(version)

        async def in_turn() -> list[tuple[str, SwapResponse]]:
            done = [pair for replica in replicas if (pair := await self._crew.attempt(replica, promote))]
            return done or self._crew.fail()

        return dict(await self._crew.patience.of(in_turn)) if replicas else {}
