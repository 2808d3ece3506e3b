"""The replicas as one crew: which of them can be asked, and how much each is asked at a time.

Each is kept full, whatever the batches: requests enter as long as fewer sequences are under way than its engine takes.
Results are kept as they arrive, line by line; if a request breaks, only the rest is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from time import monotonic
from typing import Any, Generic, TypeVar

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from evoquality import ServiceError
from evoquality.calls import Call
from evoquality.contract import InfoResponse
from service.concurrency import gather
from trainer.errors import Unreachable, WrongVersion
from trainer.workers.replica import Pictures, Replica
from trainer.workers.sizing import fitting, parts

T = TypeVar("T")
R = TypeVar("R")

_LONGEST_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Asking(Generic[T]):
    """How the items of a batch are asked: `call` makes the request for some of them, given what stands for the images.

    `ready` prepares a replica, and returns its own name of the adapter.
    """

    images: Callable[[T], Collection[str]]
    sequences: Callable[[T], int]
    call: Callable[[Sequence[T], Mapping[str, str], str | None], Call[Any]]
    ready: Callable[[Replica], Awaitable[str | None]]


class Crew:
    """Replicas on one event loop. Waits for one that answers for up to `patience` seconds, and says so to `say`."""

    def __init__(self, replicas: list[Replica], patience: float, say: Callable[[str], None]) -> None:
        self.replicas = replicas
        self.patience = Patience(patience, say)
        self._turn = asyncio.Lock()
        self._left = asyncio.Event()

    async def spread(
        self,
        items: Sequence[T],
        asking: Asking[T],
        tokens: int,
        pictures: Pictures,
        finished: Callable[[int, R], None],
    ) -> None:
        """Asks about all items, whose answers have up to `tokens` tokens each; `finished` gets position and result."""
        sequences = [asking.sequences(item) for item in items]
        engine = min(info.max_num_seqs for info in await self.engines())
        requests = parts(sequences, tokens, engine, len(self._askable()))

        async def ask(part: Sequence[int]) -> None:
            left, refused = {index: items[index] for index in part}, set[str]()
            while left:
                await self.patience.of(self._try_part, left, asking, pictures, refused, finished)

        await gather(*(ask(part) for part in requests))

    async def _try_part(
        self,
        left: dict[int, T],
        asking: Asking[T],
        pictures: Pictures,
        refused: set[str],
        finished: Callable[[int, R], None],
    ) -> None:
        """Asks one replica about as many of the items as fit into a request, and removes those that are answered.

        Raises Unreachable if none was, and there is no other replica to be asked.
        """
        before = len(left)
        held = sum(map(asking.sequences, left.values()))
        replica = await self._enter(held)
        try:
            await replica.meet()
            name = await asking.ready(replica)
            shown = [asking.images(item) for item in left.values()]
            known = await asyncio.to_thread(_fingerprints, pictures, shown)
            sizes = {image: size if replica.lacks(digest, refused) else 0 for image, (digest, size) in known.items()}
            indices = fitting(list(left), shown, sizes)
            chosen = [left[index] for index in indices]
            digests = {image: known[image][0] for item in chosen for image in asking.images(item)}
            lines = replica.lines(lambda sent: asking.call(chosen, sent, name), digests, pictures, refused)
            async with aclosing(lines):
                async for line in lines:
                    replica.trouble = None
                    self.patience.heard()
                    if line.problem:
                        raise ServiceError(line.problem)
                    if line.index is not None:
                        index = indices[line.index]
                        finished(index, line.result)
                        freed = asking.sequences(left.pop(index))
                        self._leave(replica, freed)
                        held -= freed
            if any(index in left for index in indices):
                raise httpx.RemoteProtocolError("The service ended its answer early.")
        except (ServiceError, httpx.TransportError) as trouble:
            replica.note(trouble)
            if replica.trouble and len(left) == before and not any(one.may_be_asked for one in self.replicas):
                self.fail()
        finally:
            self._leave(replica, held)

    async def _enter(self, sequences: int) -> Replica:
        """Waits until a replica has room, in the order of the requests. A request may be larger than the room."""
        async with self._turn:
            while not (free := [replica for replica in self._askable() if replica.load < 1]):
                self._left.clear()
                await self._left.wait()
            replica = min(free, key=lambda replica: replica.load)
            replica.in_flight += sequences
            return replica

    def _leave(self, replica: Replica, sequences: int) -> None:
        replica.in_flight -= sequences
        self._left.set()

    async def engines(self) -> list[InfoResponse]:
        """What the replicas said of themselves; those that never did are asked if there are no others."""
        known = [replica.info for replica in self._askable() if replica.info]
        return known or await self.patience.of(self.each, Replica.meet)

    async def each(self, ask: Callable[[Replica], Awaitable[R]], replicas: Sequence[Replica] | None = None) -> list[R]:
        """The answers of the replicas that answer. Raises as `fail` if none does."""
        asked = self._askable() if replicas is None else replicas
        answers = await gather(*(self.attempt(replica, ask) for replica in asked))
        return [answer for answer in answers if answer is not None] or self.fail()

    async def attempt(self, replica: Replica, ask: Callable[[Replica], Awaitable[R]]) -> R | None:
        """The answer of a replica, or None if it is in trouble."""
        try:
            answer = await ask(replica)
        except (ServiceError, httpx.TransportError) as trouble:
            replica.note(trouble)
            return None
        replica.trouble = None
        return answer

    def _askable(self) -> list[Replica]:
        return [replica for replica in self.replicas if replica.may_be_asked] or self.replicas

    def fail(self) -> list[Any]:
        """Raises WrongVersion if all replicas serve another version, otherwise Unreachable."""
        reasons = "; ".join(f"{replica.url}: {_reason(replica.trouble)}" for replica in self.replicas)
        if all(replica.has_another_version for replica in self.replicas):
            raise WrongVersion(
                f"every replica serves another version than this round's ({reasons}); promote the round's again to "
                "resume, or start a new run"
            )
        raise Unreachable(reasons)


def _fingerprints(pictures: Pictures, shown: Sequence[Collection[str]]) -> dict[str, tuple[str, int]]:
    return {image: pictures.fingerprint(image) for images in shown for image in images}


def _reason(trouble: BaseException | None) -> str:
    return "was not asked" if trouble is None else str(trouble) or type(trouble).__name__


class Patience:
    """Retries with growing pauses until nobody has been heard of for `seconds`, and reports pauses to `say`."""

    def __init__(self, seconds: float, say: Callable[[str], None]) -> None:
        self._seconds = seconds
        self._say = say
        self._heard = self._said = float("-inf")

    def heard(self) -> None:
        """A replica gave a sign of life."""
        self._heard = monotonic()

    async def of(self, call: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Repeats a call while it raises Unreachable, and returns its result. Raises Unreachable after `seconds`."""
        began = monotonic()
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unreachable),
            stop=lambda state: self._silence(began) >= self._seconds,
            wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT_S),
            before_sleep=lambda state: self._report(state, began),
            reraise=True,
        )
        try:
            return await retrying(call, *arguments)
        except Unreachable as reasons:
            raise Unreachable(f"no replica of the service answered for {self._seconds:.0f} s ({reasons})") from None

    def _silence(self, began: float) -> float:
        return monotonic() - max(began, self._heard)

    def _report(self, state: RetryCallState, began: float) -> None:
        """Says why it waits; once, if many calls do."""
        if monotonic() - self._said < _LONGEST_WAIT_S / 2:
            return
        self._said = monotonic()
        why = state.outcome.exception() if state.outcome else None
        self._say(f"service unreachable, waiting ({self._silence(began):.0f} s of {self._seconds:.0f}): {why}")
