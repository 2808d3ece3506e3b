"""The images of pairs, as requests carry them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from service.answers import parse_vote
from service.client import ServiceError, encode_image
from service.contract import ExactVotes, ExactVotesRequest, RolloutPrompt, RolloutRequest, RolloutResult
from service.prompts import Profile
from service.together import together
from trainer.files import append_jsonl
from trainer.pool.pool import Pool
from trainer.settings.service import VoteSettings
from trainer.voting.majority import decided, first_look
from trainer.voting.votes import Pair, PairVotes, load
from trainer.workers.spread import AsyncWorkers


def encoded(pool: Pool, pairs: Sequence[Pair]) -> dict[str, str]:
    """Each image of the pairs once, by its content id."""
    ids = {image for pair in pairs for image in pair}
    return {image: encode_image(pool.bytes_of(image)) for image in ids}


@dataclass(frozen=True, slots=True)
class ExactVoter:
    """Asks one version of a model that answers without thinking."""

    pool: Pool
    workers: AsyncWorkers
    version: str
    tie_margin: float = 0.0
    permute: bool = True

    async def ask(self, pairs: Sequence[Pair]) -> AsyncIterator[list[PairVotes]]:
        """The votes on all pairs, at once.

        Raises:
            ServiceError: code `no_exact_votes` where only samples can tell; otherwise as `AsyncWorkers.exact_votes`.
        """
        images = encoded(self.pool, pairs)
        request = ExactVotesRequest(images=images, pairs=list(pairs), version=self.version)
        response = await self.workers.exact_votes(request)
        yield [self._votes(pair, votes, response.version) for pair, votes in zip(pairs, response.results, strict=True)]

    async def possible(self, pair: Pair) -> bool:
        """Whether this model has exact votes; asks it for those on `pair`. Raises as `AsyncWorkers`."""
        try:
            return [votes async for votes in self.ask([pair])] != []
        except ServiceError as error:
            if error.problem.code != "no_exact_votes":
                raise
            return False

    def _votes(self, pair: Pair, found: ExactVotes, version: str) -> PairVotes:
        forward, backward = [found.forward.first, found.forward.second], [0.0, 0.0]
        if self.permute:
            backward = [found.backward.first, found.backward.second]
        return PairVotes(
            first=pair[0],
            second=pair[1],
            forward=forward,
            backward=backward,
            unreadable=max(0.0, 1 + self.permute - sum(forward) - sum(backward)),
            version=version,
            by="exact",
            tie_margin=self.tie_margin,
        )


@dataclass(frozen=True, slots=True)
class SampledVoter:
    """Asks one version of any model. `votes`: K; `error`: see `decided`, None: all K are drawn; `permute`: ask in both
    orders."""

    pool: Pool
    workers: AsyncWorkers
    version: str
    profile: Profile
    votes: int
    error: float | None
    temperature: float
    seed: int
    permute: bool = True

    async def ask(self, pairs: Sequence[Pair]) -> AsyncIterator[list[PairVotes]]:
        """The votes on the pairs, each as soon as it is decided. Raises as `AsyncWorkers`."""
        asked, wave = 0, self.votes if self.error is None else first_look(self.votes, self.error)
        cast = [PairVotes(*pair, [0, 0], [0, 0], 0, self.version) for pair in pairs]
        while cast:
            drawn = await self.draw([(one.first, one.second) for one in cast], asked, asked + wave)
            cast = [_added(one, more) for one, more in zip(cast, drawn, strict=True)]
            asked, wave = asked + wave, min(2, self.votes - asked - wave)
            yield [one for one in cast if self._is_decided(one)]
            cast = [one for one in cast if not self._is_decided(one)]

    async def draw(self, pairs: Sequence[Pair], start: int, stop: int) -> list[PairVotes]:
        """The answers number `start` to `stop` about every pair, of both orders in turn. Raises as `ask`."""
        shown = [one for pair in pairs for one in self._orders(pair, start, stop)]
        prompts = [self._prompt(*one) for one in shown]
        images = encoded(self.pool, pairs)
        response = await self.workers.rollouts(
            RolloutRequest(images=images, prompts=prompts, temperature=self.temperature, version=self.version)
        )
        votes = {one[0]: self._read(result) for one, result in zip(shown, response.results, strict=True)}
        return [_count(pair, votes.get(pair, []), votes.get(pair[::-1], []), response.version) for pair in pairs]

    def _is_decided(self, votes: PairVotes) -> bool:
        left = self.votes - votes.asked
        if self.error is None:
            return left == 0
        return decided(int(votes.first_votes), int(votes.second_votes), left, self.error)

    def _orders(self, pair: Pair, start: int, stop: int) -> list[tuple[Pair, int, int]]:
        """How the answers are shown: either order that has any, with the range of its own answers.

        The orders take turns; which one begins is drawn, so that an odd K prefers no order.
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
        return [parse_vote(completion.text, self.profile) for completion in result.completions]


def _count(pair: Pair, straight: list[int | None], swapped: list[int | None], version: str) -> PairVotes:
    """What the answers in both orders are votes for."""
    return PairVotes(
        first=pair[0],
        second=pair[1],
        forward=[straight.count(0), straight.count(1)],
        backward=[swapped.count(1), swapped.count(0)],
        unreadable=straight.count(None) + swapped.count(None),
        version=version,
    )


def _added(one: PairVotes, more: PairVotes) -> PairVotes:
    return PairVotes(
        first=one.first,
        second=one.second,
        forward=[a + b for a, b in zip(one.forward, more.forward, strict=True)],
        backward=[a + b for a, b in zip(one.backward, more.backward, strict=True)],
        unreadable=one.unreadable + more.unreadable,
        version=more.version,
    )


class Voter(Protocol):
    """A way of asking."""

    def ask(self, pairs: Sequence[Pair]) -> AsyncIterator[list[PairVotes]]:
        """The votes on the pairs, a part at a time. Raises as `AsyncWorkers`."""


async def choose_voter(
    settings: VoteSettings,
    pool: Pool,
    workers: AsyncWorkers,
    *,
    version: str,
    profile: Profile,
    seed: int,
    probe: Pair,
) -> Voter:
    """The way that the settings name; by default the exact one if the model has it, which `probe` finds out."""
    exact = ExactVoter(pool, workers, version, settings.tie_margin, settings.permute)
    if settings.votes_by == "exact" or (settings.votes_by == "auto" and await exact.possible(probe)):
        return exact
    return SampledVoter(
        pool, workers, version, profile, settings.votes, settings.stopping_error, settings.vote_temperature, seed,
        settings.permute,
    )  # fmt: skip


async def cast(
    pairs: Sequence[Pair],
    voter: Voter,
    path: Path,
    *,
    advance: Callable[[int], None],
    batch: int = 24,
    concurrency: int = 3,
) -> list[PairVotes]:
    """Asks about every pair that is not yet in `path`, and appends the votes; returns all of them.

    Raises:
        WrongVersion, Unreachable, ServiceError: see `AsyncWorkers.rollouts`.
    """
    done = {(vote.first, vote.second) for vote in load(path)}
    advance(len(done))
    left = [pair for pair in pairs if pair not in done]
    limit = asyncio.Semaphore(concurrency)

    async def ask(chunk: Sequence[Pair]) -> None:
        async with limit:
            async for votes in voter.ask(chunk):
                append_jsonl(path, map(asdict, votes))
                advance(len(votes))

    await together(*(ask(left[start : start + batch]) for start in range(0, len(left), batch)))
    return load(path)
