"""Sampled votes: answers drawn in both orders alike, until the pair's majority is decided or K are drawn.

The votes are those that asking K times at once would have drawn, as far as they go: sample i of an order has a seed
of its own, by the round's seed and the pair. So a stage that was killed and resumed casts the same votes.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from evoquality.contract import RolloutPrompt, RolloutRequest, RolloutResult
from service.answers import parse_vote
from service.prompts import Profile
from trainer.pool.pool import Pool
from trainer.voting.images import encoded
from trainer.voting.stopping import decided, first_look
from trainer.voting.vote import Pair, PairVotes
from trainer.workers.spread import AsyncWorkers


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
            cast = [_together(one, more) for one, more in zip(cast, drawn, strict=True)]
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


def _together(one: PairVotes, more: PairVotes) -> PairVotes:
    return PairVotes(
        first=one.first,
        second=one.second,
        forward=[a + b for a, b in zip(one.forward, more.forward, strict=True)],
        backward=[a + b for a, b in zip(one.backward, more.backward, strict=True)],
        unreadable=one.unreadable + more.unreadable,
        version=more.version,
    )
