"""Batches of exact votes for the trainer: probabilities instead of samples, read once in each order, or behind each
thought of a model that thinks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from PIL.Image import Image

from evoquality.contract import ExactVotes, ExactVotesRequest, ExactVotesResponse, VersionInfo, VoteProbabilities
from service.concurrency import gather
from service.engine.protocol import Engine
from service.engine.traffic import Traffic
from service.errors import InvalidRequest, NoExactVotes, NotSpelled, VersionConflict
from service.judging.estimates import VoteEstimate
from service.judging.expected import Expected
from service.judging.plan import Draws, derived_seed
from service.prompts import PROFILES
from service.versions.swap_lock import SwapLock


class ExactVoting:
    """Asks the engine at the priority of the batch. Answers are not cached: a round asks about each pair once."""

    def __init__(self, engine: Engine, swap_lock: SwapLock, traffic: Traffic) -> None:
        self._expected = Expected(engine)
        self._swap_lock = swap_lock
        self._traffic = traffic

    async def answer(self, request: ExactVotesRequest, images: Mapping[str, Image]) -> ExactVotesResponse:
        """Answers a batch by one version. Raises as `run`."""
        found: dict[int, ExactVotes] = {}
        version = await self.run(request, images, lambda version: None, found.__setitem__)
        return ExactVotesResponse(results=[found[index] for index in range(len(request.pairs))], version=version)

    async def run(
        self,
        request: ExactVotesRequest,
        images: Mapping[str, Image],
        begun: Callable[[str], None],
        finished: Callable[[int, ExactVotes], None],
    ) -> str:
        """As `answer`: tells the version before it asks the engine, and the votes on each pair as they are ready.

        Raises VersionConflict, Swapping; NoExactVotes if the model can only be sampled; InvalidRequest if an image is
        missing, or question and answer do not fit the model.
        """
        _check_pairs(request, images)
        async with self._swap_lock.giving_way() as version:
            if request.version not in (None, version.id):
                raise VersionConflict(f"The active version is {version.id}.")
            begun(version.id)

            async def ask(index: int, pair: tuple[str, str]) -> None:
                finished(index, await self._ask(version, pair, images, request))

            try:
                await gather(*(ask(index, pair) for index, pair in enumerate(request.pairs)))
            except NotSpelled as failure:
                raise NoExactVotes(
                    "Exact votes need a tokenizer with one token per digit; vote by samples."
                ) from failure
        return version.id

    async def _ask(
        self, version: VersionInfo, pair: tuple[str, str], images: Mapping[str, Image], request: ExactVotesRequest
    ) -> ExactVotes:
        forward, backward = await gather(
            self._vote(version, pair, images, request), self._vote(version, pair[::-1], images, request)
        )
        return ExactVotes(
            forward=VoteProbabilities(first=forward.shown_first, second=forward.shown_second, cut_off=forward.cut_off),
            backward=VoteProbabilities(
                first=backward.shown_second, second=backward.shown_first, cut_off=backward.cut_off
            ),
        )

    async def _vote(
        self, version: VersionInfo, shown: tuple[str, str], images: Mapping[str, Image], request: ExactVotesRequest
    ) -> VoteEstimate:
        draws = _draws(shown, request) if PROFILES[version.profile].thinks else None
        async with self._traffic.rollout(draws.count if draws else 1):
            pictures = images[shown[0]], images[shown[1]]
            return await self._expected.vote(version, pictures, draws, priority=request.priority)


def _draws(shown: tuple[str, str], request: ExactVotesRequest) -> Draws:
    """Thoughts with noise of their own for each order of each pair."""
    seed = derived_seed(request.seed, *shown) // 2 + request.first_thought
    return Draws(request.thoughts, request.temperature, seed, request.max_answer_tokens)


def _check_pairs(request: ExactVotesRequest, images: Mapping[str, Image]) -> None:
    for index, pair in enumerate(request.pairs):
        if not images.keys() >= set(pair):
            raise InvalidRequest(f"pairs.{index} names an image that `images` does not contain.")
