"""The offline stage: every pair is asked, exactly or by samples, and its votes are appended to a file as they come.

A killed stage resumes where it stopped and casts the same votes. All votes are of one version: the service refuses
once another is active.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from evoquality import ServiceError
from evoquality.contract import ExactVotes, RolloutPrompt, RolloutResult
from service.answers import parse_vote
from service.concurrency import gather
from service.prompts import Profile
from trainer.files import append_jsonl
from trainer.pool.pool import Pool
from trainer.settings.service import VoteSettings
from trainer.voting.majority import decided, first_look
from trainer.voting.thoughts import ThoughtVoter
from trainer.voting.votes import Pair, PairVotes, Take, added, load
from trainer.workers.spread import AsyncWorkers

_CUT_OFF = -1


class Voter(Protocol):
    """A way of asking for votes."""

    async def ask(self, pairs: Sequence[Pair], take: Take) -> None:
        """Asks about any number of pairs; `take` gets the votes on each as they come. Raises as `AsyncWorkers`."""


@dataclass(frozen=True, slots=True)
class ExactVoter:
    """Asks one version of a model that answers without thinking for its probabilities of both answers, in both orders:
    one pass each instead of K samples."""

    pool: Pool
    workers: AsyncWorkers
    version: str
    tie_margin: float = 0.0
    permute: bool = True

    async def ask(self, pairs: Sequence[Pair], take: Take) -> None:
        """Asks about the pairs in large requests.

        Raises:
            ServiceError: code `no_exact_votes` if the model can only be sampled; otherwise as
                `AsyncWorkers.exact_votes`.
        """

        def finished(index: int, votes: ExactVotes) -> None:
            take(self._votes(pairs[index], votes))

        await self.workers.exact_votes(pairs, self.pool, finished, version=self.version)

    async def possible(self, pair: Pair) -> bool:
        """True if this model has exact votes; asks for those on `pair`. Raises as `AsyncWorkers`."""
        try:
            await self.ask([pair], lambda votes: None)
        except ServiceError as error:
            if error.problem.code != "no_exact_votes":
                raise
            return False
        return True

    def _votes(self, pair: Pair, found: ExactVotes) -> PairVotes:
        forward, backward = [found.forward.first, found.forward.second], [0.0, 0.0]
        if self.permute:
            backward = [found.backward.first, found.backward.second]
        return PairVotes(
            first=pair[0],
            second=pair[1],
            forward=forward,
            backward=backward,
            unreadable=max(0.0, 1 + self.permute - sum(forward) - sum(backward)),
            version=self.version,
            by="exact",
            tie_margin=self.tie_margin,
        )


@dataclass(frozen=True, slots=True)
class SampledVoter:
    """Asks one version of any model for answers in both orders alike, until the pair's majority is decided or K are
    drawn.

    As far as they go, the votes are those that K questions at once would have drawn: sample i of an order has its own
    seed, made of the round's seed and the pair. So a resumed stage casts the same votes.
    """

    pool: Pool
    workers: AsyncWorkers
    version: str
    profile: Profile
    votes: int
    """K."""
    error: float | None
    """See `decided`; None: all K are drawn."""
    temperature: float
    seed: int
    permute: bool = True
    """Ask in both orders."""

    async def ask(self, pairs: Sequence[Pair], take: Take) -> None:
        """Asks about as many pairs at a time as keep the engines full; each goes on by itself until it is decided."""

        async def vote(pair: Pair) -> None:
            take(await self._vote(pair))

        await self.workers.keep_full(pairs, vote)

    async def _vote(self, pair: Pair) -> PairVotes:
        """The votes on a pair: a first look, then two at a time until it is decided."""
        wave = self.votes if self.error is None else first_look(self.votes, self.error)
        votes = await self.draw(pair, 0, wave)
        while not self._is_decided(votes):
            votes = added(votes, await self.draw(pair, votes.asked, min(votes.asked + 2, self.votes)))
        return votes

    async def draw(self, pair: Pair, start: int, stop: int) -> PairVotes:
        """The answers number `start` to `stop` about a pair, of both orders in turn. Raises as `ask`."""
        shown = self._orders(pair, start, stop)
        results = await self.workers.rollouts(
            [self._prompt(*one) for one in shown], self.pool, version=self.version, temperature=self.temperature
        )
        votes = {one[0]: self._read(result) for one, result in zip(shown, results, strict=True)}
        return _count(pair, votes.get(pair, []), votes.get(pair[::-1], []), self.version)

    def _is_decided(self, votes: PairVotes) -> bool:
        left = self.votes - votes.asked
        if self.error is None:
            return left == 0
        return decided(int(votes.first_votes), int(votes.second_votes), left, self.error)

    def _orders(self, pair: Pair, start: int, stop: int) -> list[tuple[Pair, int, int]]:
        """Each order that has answers to draw, with the range of its own answers.

        The orders take turns. The seed draws the one that begins, so that an odd K prefers no order.
        """
        if not self.permute:
            return [(pair, start, stop)]
        first, other = (pair, pair[::-1]) if self._seed(pair) % 2 else (pair[::-1], pair)
        turns = [(first, -(-start // 2), -(-stop // 2)), (other, start // 2, stop // 2)]
        return [turn for turn in turns if turn[1] < turn[2]]

    def _prompt(self, shown: Pair, start: int, stop: int) -> RolloutPrompt:
        return RolloutPrompt(task="compare", images=list(shown), samples=stop - start, seed=self._seed(shown) + start)

    def _seed(self, shown: Pair) -> int:
        digest = hashlib.sha256(f"{self.seed}/{shown[0]}/{shown[1]}".encode()).digest()
        return int.from_bytes(digest[:4]) >> 2  # far enough below 2**31 for every sample of the pair

    def _read(self, result: RolloutResult) -> list[int | None]:
        """0 or 1; None is unreadable, and `_CUT_OFF` was ended by the limit of a model that thinks."""
        cut = _CUT_OFF if self.profile.thinks else None
        return [
            cut if vote is None and completion.finish_reason == "length" else vote
            for completion in result.completions
            for vote in [parse_vote(completion.text, self.profile)]
        ]


async def choose_voter(
    settings: VoteSettings,
    pool: Pool,
    workers: AsyncWorkers,
    *,
    version: str,
    profile: Profile,
    seed: int,
    pairs: Sequence[Pair],
) -> Voter:
    """The voter that the settings name. `votes_by` auto asks for exact votes on the first of the pairs, and samples if
    the model has none; how much is learnt from a thought is measured on a few of them."""
    exact = ExactVoter(pool, workers, version, settings.tie_margin, settings.permute)
    if settings.votes_by == "exact" or (settings.votes_by == "auto" and await exact.possible(pairs[0])):
        if not profile.thinks:
            return exact
        thoughts = ThoughtVoter(
            pool,
            workers,
            version,
            votes=settings.votes,
            error=settings.stopping_error,
            temperature=settings.vote_temperature,
            seed=seed,
            permute=settings.permute,
        )
        return await thoughts.calibrated(pairs)
    return SampledVoter(
        pool,
        workers,
        version,
        profile,
        votes=settings.votes,
        error=settings.stopping_error,
        temperature=settings.vote_temperature,
        seed=seed,
        permute=settings.permute,
    )


async def cast(pairs: Sequence[Pair], voter: Voter, path: Path, *, advance: Callable[[int], None]) -> list[PairVotes]:
    """Asks about every pair that is not yet in the file `path`, and appends the votes. Returns all of them.

    Raises:
        WrongVersion, Unreachable, ServiceError: see `AsyncWorkers.rollouts`.
        DiskFull: the votes could not be written.
    """
    done = {(vote.first, vote.second) for vote in load(path)}
    advance(len(done))
    left = [pair for pair in pairs if pair not in done]
    arrived: asyncio.Queue[PairVotes | Exception | None] = asyncio.Queue()

    async def ask() -> None:
        try:
            await voter.ask(left, arrived.put_nowait)
            arrived.put_nowait(None)
        except Exception as failure:
            arrived.put_nowait(failure)  # behind the votes that came before

    async def write() -> None:
        ended = False
        while not ended:
            came = [await arrived.get(), *(arrived.get_nowait() for _ in range(arrived.qsize()))]
            votes = [one for one in came if isinstance(one, PairVotes)]
            await asyncio.to_thread(append_jsonl, path, map(asdict, votes))
            advance(len(votes))
            ended = len(votes) < len(came)
        if isinstance(came[-1], Exception):
            raise came[-1]

    await gather(ask(), write())
    return load(path)


def _count(pair: Pair, straight: list[int | None], swapped: list[int | None], version: str) -> PairVotes:
    """The answers in both orders as votes for the pair's images."""
    return PairVotes(
        first=pair[0],
        second=pair[1],
        forward=[straight.count(0), straight.count(1)],
        backward=[swapped.count(1), swapped.count(0)],
        unreadable=straight.count(None) + swapped.count(None),
        version=version,
        cut_off=straight.count(_CUT_OFF) + swapped.count(_CUT_OFF),
    )
