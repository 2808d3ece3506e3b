"""Exact votes: the model's own probabilities of both answers, in both orders, one pass each instead of K samples."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from evoquality import ServiceError
from evoquality.contract import ExactVotes, ExactVotesRequest
from trainer.pool.pool import Pool
from trainer.voting.images import encoded
from trainer.voting.vote import Pair, PairVotes
from trainer.workers.spread import AsyncWorkers


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
