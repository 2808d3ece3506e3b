"""Votes of models that think: the probabilities of both answers behind thoughts, until the label is decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from evoquality.contract import ExactVotes
from service.concurrency import gather
from trainer.pool.pool import Pool
from trainer.voting.majority import UNCALIBRATED, Calibration, calibration, label_change
from trainer.voting.votes import Pair, PairVotes, Take, added
from trainer.workers.spread import AsyncWorkers

_PILOT_PAIRS, _PILOT_THOUGHTS = 32, 4
_PILOT_SHARE = 8
"""At most one in so many pairs is looked at before."""


@dataclass(frozen=True, slots=True)
class ThoughtVoter:
    """Asks one version of a model that thinks for a thought in each order at a time, and for its probabilities of both
    answers behind it, until the pair's label is decided or K thoughts are drawn.

    The label is the majority, as that of sampled votes: to settle a tie margin takes twice as many thoughts.

    Thought i of an order is the same in every request of a round. So a resumed stage casts the same votes.
    """

    pool: Pool
    workers: AsyncWorkers
    version: str
    votes: int
    """K, at least two."""
    error: float | None
    """Thoughts end once the label is expected to change by at most this, until all K are drawn; None: all are drawn."""
    temperature: float
    seed: int
    permute: bool = True
    known: Calibration = UNCALIBRATED

    async def ask(self, pairs: Sequence[Pair], take: Take) -> None:
        """Asks about as many pairs at a time as keep the engines full; each goes on by itself until it is decided.

        Raises as `AsyncWorkers`.
        """

        async def vote(pair: Pair) -> None:
            take(await self.vote(pair))

        await self.workers.keep_full(pairs, vote)

    async def vote(self, pair: Pair) -> PairVotes:
        """The votes on one pair. Raises as `ask`."""
        cast, orders = await self.think(pair, 0), 1 + self.permute
        for number in range(1, max(1, self.votes // orders)):
            left = self.votes // orders * orders - cast.asked
            if self.error is not None and label_change(cast, left, self.known) <= self.error:
                break
            cast = added(cast, await self.think(pair, number))
        return cast

    async def think(self, pair: Pair, number: int) -> PairVotes:
        """The votes of thought `number` in each order. Raises as `ask`."""
        votes: dict[int, ExactVotes] = {}
        await self.workers.exact_votes(
            [pair],
            self.pool,
            votes.__setitem__,
            version=self.version,
            thought=number,
            temperature=self.temperature,
            seed=self.seed,
        )
        found = votes[0]
        orders = [found.forward, found.backward][: 1 + self.permute]
        forward, *backward = [[one.first, one.second] for one in orders]
        cut_off = sum(one.cut_off for one in orders)
        return PairVotes(
            *pair,
            forward=forward,
            backward=backward[0] if backward else [0.0, 0.0],
            unreadable=max(0.0, len(orders) - cut_off - sum(one.first + one.second for one in orders)),
            version=self.version,
            by="thoughts",
            cut_off=cut_off,
        )

    async def calibrated(self, pairs: Sequence[Pair]) -> ThoughtVoter:
        """This voter, after a look at a few of the pairs. Raises as `ask`."""
        chosen = pairs[:: max(_PILOT_SHARE, len(pairs) // _PILOT_PAIRS)]
        shares = await gather(*(self._shares(pair) for pair in chosen))
        return replace(self, known=calibration([row for row in shares if len(row) > 1], 1 + self.permute))

    async def _shares(self, pair: Pair) -> list[float]:
        """The first image's shares of the readable votes, for a thought in each order at a time."""
        drawn = await gather(*(self.think(pair, number) for number in range(_PILOT_THOUGHTS)))
        return [one.share for one in drawn if one.share is not None]
