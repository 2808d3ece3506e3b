"""The replicas of the service as rollout workers: a batch is spread over those that answer.

A replica that is dead, busy or on another version is skipped and tried again later. If none answers, the trainer waits
up to `patience` seconds; then `Unreachable` ends the round. All replicas share one version store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, wait_random_exponential

from evoquality import AsyncClient, ServiceError
from evoquality.contract import (
    ExactVotes,
    ExactVotesRequest,
    ExactVotesResponse,
    InfoResponse,
    RolloutPrompt,
    RolloutRequest,
    RolloutResponse,
    RolloutResult,
    SwapResponse,
)
from service.concurrency import gather
from service.versions.store import VersionStore
from trainer.errors import Unreachable, WrongVersion
from trainer.files import writing
from trainer.workers.replica import Replica

T = TypeVar("T")
R = TypeVar("R")

MAX_IMAGE_BYTES = 64 * 2**20
"""Limit of a request's images in base64: ten or more of the largest in a pool. The service refuses bodies beyond its
`max_operator_bytes`, 256 MiB by default."""
_LONGEST_WAIT_S = 10.0


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
    ) -> None:
        adapters = store.within("adapters")
        self._replicas = [Replica(url, AsyncClient(url, key), adapters, overwritten) for url in urls]
        self._patience = Patience(patience, say)
        self._store = store

    async def replica_info(self, replicas: Sequence[Replica] | None = None) -> dict[str, InfoResponse]:
        """The `/v1/info` of replicas (by default those not in trouble), by address; waits for at least one."""

        async def ask(replica: Replica) -> tuple[str, InfoResponse]:
            return replica.url, await replica.client.info()

        return dict(await self._patience.of(self._each, ask, replicas))

    async def info(self) -> InfoResponse:
        """The `/v1/info` of one replica; the others should run with the same limits."""
        return next(iter((await self.replica_info()).values()))

    async def rollouts(self, request: RolloutRequest) -> RolloutResponse:
        """As `AsyncClient.rollouts`, spread over the replicas. The request must name its version; rollout engines are
        first overwritten with it.

        Raises:
            WrongVersion: every replica serves another version.
            Unreachable: no replica answered for too long.
            ServiceError: the request itself was refused.
        """
        if request.version is None:
            raise ValueError("a request for rollouts must name its version")

        version = request.version

        async def ask(replica: Replica, prompts: Sequence[RolloutPrompt]) -> Sequence[RolloutResult]:
            await replica.overwrite(version)
            shown = {image: request.images[image] for prompt in prompts for image in prompt.images}
            adapter = await replica.own_name(request.adapter)
            part = request.model_copy(update={"prompts": prompts, "images": shown, "adapter": adapter})
            return (await replica.client.rollouts(part)).results

        def fit(prompts: Sequence[RolloutPrompt]) -> Sequence[RolloutPrompt]:
            return fitting(prompts, attrgetter("images"), request.images)

        results = await self._spread(request.prompts, ask, fit)
        return RolloutResponse(results=results, adapter=request.adapter, version=version)

    async def exact_votes(self, request: ExactVotesRequest) -> ExactVotesResponse:
        """As `AsyncClient.exact_votes`, spread over the replicas. The request must name its version. Raises as
        `rollouts`."""
        if request.version is None:
            raise ValueError("a request for exact votes must name its version")

        async def ask(replica: Replica, pairs: Sequence[tuple[str, str]]) -> Sequence[ExactVotes]:
            shown = {image: request.images[image] for pair in pairs for image in pair}
            part = request.model_copy(update={"pairs": pairs, "images": shown})
            return (await replica.client.exact_votes(part)).results

        results = await self._spread(request.pairs, ask, lambda pairs: fitting(pairs, tuple, request.images))
        return ExactVotesResponse(results=results, version=request.version)

    async def load_adapter(self, name: str) -> None:
        """Loads `<store>/adapters/<name>` on the replicas that answer now; the others load it when they are asked."""

        async def load(replica: Replica) -> str | None:
            return await replica.own_name(name)

        await self._patience.of(self._each, load)

    async def unload_adapter(self, name: str) -> None:
        """Unloads an adapter everywhere, without waiting for replicas that do not answer."""
        await gather(*(replica.unload(name) for replica in self._replicas))

    async def remove_adapter(self, own_name: str) -> None:
        """Unloads an adapter that an earlier process left loaded, by the replica's own name for it."""
        await gather(*(replica.remove(own_name) for replica in self._replicas))

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
        infos = await self.replica_info(self._replicas)
        leading, following = ([url for url in infos if infos[url].follows == follows] for follows in (False, True))
        swaps = await self._promote_on(leading, version)
        await asyncio.to_thread(self._point_at, version, instead_of)
        swaps |= await self._promote_on(following, version)
        return next(iter(swaps.values())), [replica.url for replica in self._replicas if replica.url not in swaps]

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

        await self._patience.of(self._each, take)

    async def close(self) -> None:
        """Closes the connections."""
        await gather(*(replica.client.close() for replica in self._replicas))

    async def _spread(
        self,
        items: Sequence[T],
        ask: Callable[[Replica, Sequence[T]], Awaitable[Sequence[R]]],
        fit: Callable[[Sequence[T]], Sequence[T]],
    ) -> list[R]:
        """The results in the items' order. Each replica gets as much of its share as fits into a request; the rest, and
        the shares of replicas that fail, go into the next pass."""
        found: dict[int, R] = {}

        async def try_once() -> None:
            left = [index for index in range(len(items)) if index not in found]
            replicas = self._askable()[: len(left)]

            async def share(replica: Replica) -> tuple[list[int], Sequence[R]]:
                mine = left[replicas.index(replica) :: len(replicas)]
                part = fit([items[index] for index in mine])
                return mine[: len(part)], await ask(replica, part)

            for indices, results in await self._each(share, replicas):
                found.update(zip(indices, results, strict=True))

        while len(found) < len(items):
            await self._patience.of(try_once)
        return [found[index] for index in range(len(items))]

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
        replicas = [replica for replica in self._replicas if replica.url in urls]

        async def promote(replica: Replica) -> tuple[str, SwapResponse]:
            return replica.url, await replica.promote(version)

        async def in_turn() -> list[tuple[str, SwapResponse]]:
            done = [pair for replica in replicas if (pair := await self._try(replica, promote))]
            return done or self._fail()

        return dict(await self._patience.of(in_turn)) if replicas else {}

    async def _each(self, ask: Callable[[Replica], Awaitable[R]], replicas: Sequence[Replica] | None = None) -> list[R]:
        """The answers of the replicas that answer. Raises as `_fail` if none does."""
        asked = self._askable() if replicas is None else replicas
        answers = await gather(*(self._try(replica, ask) for replica in asked))
        return [answer for answer in answers if answer is not None] or self._fail()

    async def _try(self, replica: Replica, ask: Callable[[Replica], Awaitable[R]]) -> R | None:
        try:
            answer = await ask(replica)
        except (ServiceError, httpx.TransportError) as trouble:
            replica.note(trouble)
            return None
        replica.trouble = None
        return answer

    def _askable(self) -> list[Replica]:
        return [replica for replica in self._replicas if replica.may_be_asked] or self._replicas

    def _fail(self) -> list[Any]:
        """Raises WrongVersion if all replicas serve another version, otherwise Unreachable."""
        reasons = "; ".join(f"{replica.url}: {_reason(replica.trouble)}" for replica in self._replicas)
        if all(replica.has_another_version for replica in self._replicas):
            raise WrongVersion(
                f"every replica serves another version than this round's ({reasons}); promote the round's again to "
                "resume, or start a new run"
            )
        raise Unreachable(reasons)


def _reason(trouble: BaseException | None) -> str:
    return "was not asked" if trouble is None else str(trouble) or type(trouble).__name__


@dataclass(frozen=True, slots=True)
class Patience:
    """Retries with growing pauses for `seconds`, and reports each pause to `say`."""

    seconds: float
    say: Callable[[str], None]

    async def of(self, call: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Repeats a call while it raises Unreachable, and returns its result. Raises Unreachable after `seconds`."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unreachable),
            stop=stop_after_delay(self.seconds),
            wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT_S),
            before_sleep=self._report,
            reraise=True,
        )
        try:
            return await retrying(call, *arguments)
        except Unreachable as reasons:
            raise Unreachable(f"no replica of the service answered for {self.seconds:.0f} s ({reasons})") from None

    def _report(self, state: RetryCallState) -> None:
        why = state.outcome.exception() if state.outcome else None
        waited = state.seconds_since_start or 0.0
        self.say(f"service unreachable, waiting ({waited:.0f} s of {self.seconds:.0f}): {why}")


def fitting(items: Sequence[T], shown: Callable[[T], Iterable[str]], images: Mapping[str, str]) -> Sequence[T]:
    """The first items, at least one, whose images (named by `shown`) fit into a request, each image carried once."""
    carried: set[str] = set()
    size = 0
    for count, item in enumerate(items):
        more = set(shown(item)) - carried
        size += sum(len(images[image]) for image in more)
        if count and size > MAX_IMAGE_BYTES:
            return items[:count]
        carried |= more
    return items
