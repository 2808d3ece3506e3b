"""Ranks images by quality with far fewer comparisons than there are pairs."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence

from evoquality.contract import (
    CompareOptions,
    CompareResponse,
    Mode,
    RankedImage,
    RankOptions,
    RankResponse,
    VersionInfo,
)
from service.concurrency import gather
from service.errors import InvalidRequest
from service.images.decoder import Picture
from service.judging.judge import Judge
from service.judging.plan import derived_seed, planned
from service.prompts import PROFILES
from service.ranking.strengths import Kind, Preference, Strengths, fit
from service.ranking.tournament import Pair, Tournament, default_comparisons

KINDS: dict[Mode, Kind] = {"sampled": "votes", "expected": "probabilities"}


async def rank(judge: Judge, pictures: Sequence[Picture], options: RankOptions) -> RankResponse:
    """Ranks pictures by one version of the weights. Raises as `Judge.compare`.

    The pictures are sorted by their digests, so that the same pictures in another order are compared alike.
    """
    budget = options.comparisons or default_comparisons(len(pictures))
    if budget < len(pictures) - 1:
        raise InvalidRequest(f"comparisons: {len(pictures)} images need at least {len(pictures) - 1}.")
    await gather(*(picture.pixels() for picture in pictures))
    order = sorted(range(len(pictures)), key=lambda index: pictures[index].digest)
    async with judge.session() as version:
        ranking = _Ranking(judge, version, [pictures[index] for index in order], options, budget)
        return await ranking.response(await ranking.run(), order)


class _Ranking:
    """The comparisons of one request and their result."""

    def __init__(
        self, judge: Judge, version: VersionInfo, pictures: Sequence[Picture], options: RankOptions, budget: int
    ) -> None:
        self._judge = judge
        self._version = version
        self._pictures = pictures
        self._options = options
        self._plan = planned(options, PROFILES[version.profile], [picture.digest for picture in pictures])
        self._tournament = Tournament(len(pictures), budget)
        self._answers: list[CompareResponse] = []
        self._preferences: list[Preference] = []

    async def run(self) -> Strengths:
        """Makes the comparisons. Returns the strengths that all of them give."""
        for pairs in self._tournament.opening():
            await self._compare(pairs)
        while pairs := self._tournament.next_round(found := await self._fit()):
            await self._compare(pairs)
        return found

    async def response(self, found: Strengths, order: Sequence[int]) -> RankResponse:
        """`order[i]` is the position of picture i in the caller's request."""
        biases = [answer.position_bias for answer in self._answers if answer.position_bias is not None]
        images = len(self._pictures)
        return RankResponse(
            ranking=await self._places(found, order),
            comparisons=len(self._answers),
            pairs=images * (images - 1) // 2,
            position_bias=statistics.fmean(biases) if biases else None,
            mode=self._plan.mode,
            seed=self._plan.seed,
            unreadable=statistics.fmean(answer.unreadable for answer in self._answers),
            cut_off=statistics.fmean(answer.cut_off for answer in self._answers),
            model=self._judge.model,
            version=self._version.id,
        )

    async def _compare(self, pairs: Sequence[Pair]) -> None:
        answers = await gather(*(self._ask(*pair) for pair in pairs))
        self._answers += answers
        for pair, answer in zip(pairs, answers, strict=True):
            self._preferences += preferences(pair, answer)

    async def _ask(self, one: int, other: int) -> CompareResponse:
        options = CompareOptions(
            mode=self._plan.mode,
            samples=self._plan.samples,
            thoughts=self._plan.thoughts,
            temperature=self._options.temperature,
            seed=None if self._plan.seed is None else derived_seed(self._plan.seed, one, other),
        )
        return await self._judge.compare(self._pictures[one], self._pictures[other], options, self._version)

    async def _fit(self) -> Strengths:
        return await asyncio.to_thread(fit, len(self._pictures), self._preferences, KINDS[self._plan.mode])

    async def _places(self, found: Strengths, order: Sequence[int]) -> list[RankedImage]:
        compared = sorted({item for preference in self._preferences for item in (preference.first, preference.second)})
        errors = found.standard_errors()
        ranks = dict(zip(compared, found.ranks(compared), strict=True))
        places = [
            RankedImage(
                index=order[item],
                rank=ranks.get(item),
                strength=float(found.values[item]) if item in ranks else None,
                standard_error=float(errors[item]) if item in ranks and errors is not None else None,
                image=self._judge.size(await picture.pixels(), self._version),
            )
            for item, picture in enumerate(self._pictures)
        ]
        return sorted(places, key=lambda place: (place.rank or len(places) + 1, place.index))


def preferences(pair: Pair, answer: CompareResponse) -> list[Preference]:
    """The preference of each order of presentation that has a readable answer."""
    found = []
    for order in answer.orders:
        share = order.probability_first
        if share is None:
            continue
        weight = (1 - order.unreadable - order.cut_off) * (answer.samples or 2) / 2
        first_shown = order.shown_first == "first"
        shown, share = (pair, share) if first_shown else (pair[::-1], 1 - share)
        found.append(Preference(*shown, share, weight))
    return found
