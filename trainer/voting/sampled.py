"""Sampled votes: answers drawn in both orders alike, until the pair's majority is decided or K are drawn.

The votes are those that asking K times at once would have drawn, as far as they go: sample i of an order has a seed
of its own, by the round's seed and the pair. So a stage that was killed and resumed casts the same votes.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from service.answers import parse_vote
from service.contract import RolloutPrompt, RolloutRequest, RolloutResult
from service.prompts import Profile
from trainer.pool.pool import Pool
from trainer.voting.images import encoded
from trainer.voting.stopping import decided, first_look
from trainer.voting.vote import Pair, PairVotes
from trainer.workers.spread import AsyncWorkers


@dataclass(frozen=True, slots=True)
class SampledVoter:
    """Asks one version of any model. `votes`: K, even; `error`: see `decided`."""

    pool: Pool
    workers: AsyncWorkers
    version: str
    profile: Profile
    votes: int
    error: float
    temperature: float
    seed: int

    async def ask(self, pairs: Sequence[Pair]) -> AsyncIterator[list[PairVotes]]:
        """The votes on the pairs, each as soon as it is decided. Raises as `AsyncWorkers`."""
        asked, wave = 0, first_look(self.votes, self.error)
        cast = [PairVotes(*pair, [0, 0], [0, 0], 0, self.version) for pair in pairs]
        while cast:
            drawn = await self.draw([(one.first, one.second) for one in cast], asked // 2, wave // 2)
            cast = [_together(one, more) for one, more in zip(cast, drawn, strict=True)]
            asked, wave = asked + wave, 2
            yield [one for one in cast if self._is_decided(one)]
            cast = [one for one in cast if not self._is_decided(one)]

    async def draw(self, pairs: Sequence[Pair], start: int, samples: int) -> list[PairVotes]:
        """The answers number `start` to `start + samples` of both orders of every pair. Raises as `ask`."""
        prompts = [self._prompt(shown, start, samples) for pair in pairs for shown in (pair, pair[::-1])]
        images = encoded(self.pool, pairs)
        response = await self.workers.rollouts(
            RolloutRequest(images=images, prompts=prompts, temperature=self.temperature, version=self.version)
        )
        results = iter(response.results)
        return [_count(pair, next(results), next(results), self.profile, response.version) for pair in pairs]

    def _is_decided(self, votes: PairVotes) -> bool:
        return decided(int(votes.first_votes), int(votes.second_votes), self.votes - votes.asked, self.error)

    def _prompt(self, shown: Pair, start: int, samples: int) -> RolloutPrompt:
        digest = hashlib.sha256(f"{self.seed}/{shown[0]}/{shown[1]}".encode()).digest()
        seed = int.from_bytes(digest[:4]) >> 2  # far enough below 2**31 for every sample of the pair
        return RolloutPrompt(task="compare", images=list(shown), samples=samples, seed=seed + start)


def _count(pair: Pair, forward: RolloutResult, backward: RolloutResult, profile: Profile, version: str) -> PairVotes:
    """What the answers in both orders are votes for."""
    straight = [parse_vote(completion.text, profile) for completion in forward.completions]
    swapped = [parse_vote(completion.text, profile) for completion in backward.completions]
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
