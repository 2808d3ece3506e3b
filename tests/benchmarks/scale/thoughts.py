"""What reading the probabilities behind thoughts saves of a thinking model's answers and votes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from evoquality import encode_image
from evoquality.contract import RolloutPrompt, RolloutRequest, ScoreOptions
from service.answers import parse_vote
from service.concurrency import gather
from service.prompts import PROFILES
from tests.benchmarks.train.votes import demo_pool, random_pairs
from tests.engine.running import Running
from trainer.pool.pool import Pool
from trainer.settings.evolve import EvolveSettings
from trainer.voting.majority import change, label_change
from trainer.voting.thoughts import ThoughtVoter
from trainer.voting.votes import Pair, PairVotes, added, agreement
from trainer.workers.spread import AsyncWorkers

PICTURES, DRAWS, PAIRS = 24, 32, 200
AGREEMENT = 0.98
_ERRORS = np.geomspace(0.005, 0.5, 60)
"""Allowed changes of a label, from which the largest that keeps the agreement is taken."""
_AT_A_TIME = 24
_GENERATED = re.compile(r"^vllm:generation_tokens_total\{.*\} (\S+)$", re.MULTILINE)


def figures(service: Running, folder: Path) -> dict[str, Any]:
    """Measures on a service of a thinking model without a cache; `folder` keeps pictures.

    `variance_ratio`: the variance of one picture's score, sampled answer over expectation behind a thought, at equal
    tokens: each is multiplied with the tokens that one of them generates, those read behind the thought included.
    Above 1 the expectation is better.

    `votes_per_pair`: thoughts a pair, as a share of K = 32, at which the labels agree to 98 % with those of all 32
    thoughts. `sampled_votes_per_pair` is the same of sampled votes and their majority of 32.
    """
    pool = demo_pool(folder)
    return {**variances(service, pool), **asyncio.run(_votes(service, pool))}


def variances(service: Running, pool: Pool) -> dict[str, Any]:
    """The variances of scores of the same picture, their tokens, and `variance_ratio`."""
    images = [pool.bytes_of(image.id) for image in pool.images[:: len(pool.images) // PICTURES][:PICTURES]]

    def scores(seed: int, option: str) -> list[float]:
        options = ScoreOptions.model_validate({option: 1, "seed": seed})
        with ThreadPoolExecutor(_AT_A_TIME) as threads:
            found = threads.map(lambda image: service.public.score(image, options).score, images)
            return [np.nan if score is None else score for score in found]

    figures: dict[str, Any] = {}
    for name, option in (("sampled", "samples"), ("expected", "thoughts")):
        with _generated(service) as tokens:
            drawn = np.array([scores(seed, option) for seed in range(DRAWS)])
        variance = float(np.nanmean(np.nanvar(drawn, axis=0, ddof=1)))
        figures[name] = {"variance": variance, "tokens": tokens() / drawn.size}
    sampled, expected = figures["sampled"], figures["expected"]
    ratio = sampled["variance"] * sampled["tokens"] / (expected["variance"] * expected["tokens"])
    return {"variance_ratio": ratio, "scores": figures}


async def _votes(service: Running, pool: Pool) -> dict[str, Any]:
    pairs = random_pairs(pool)[:PAIRS]
    shown = {image for pair in pairs for image in pair}
    pool.make(pool.missing(shown), lambda count: None)
    workers = AsyncWorkers([service.operator_url], service.key, service.store, 60, print)
    try:
        voter = ThoughtVoter(
            pool,
            workers,
            service.active,
            _default("votes"),
            _default("vote_error"),
            _default("vote_temperature"),
            0,
        )
        voter = await voter.calibrated(pairs)
        limit = asyncio.Semaphore(_AT_A_TIME)

        async def drawn(pair: Pair) -> list[PairVotes]:
            async with limit:
                return [await voter.think(pair, number) for number in range(voter.votes // 2)]

        thoughts = await gather(*(drawn(pair) for pair in pairs))
    finally:
        await workers.close()
    samples = sampled_votes(service, pool, pairs)
    known = voter.known
    stop = partial(_until, change=lambda votes, left: label_change(votes, left, known))
    by_default = stop(thoughts, error=_default("vote_error"))
    return {
        "votes_per_pair": _fewest(stop, thoughts),
        "sampled_votes_per_pair": _fewest(partial(_until, change=_majority_change), samples),
        "by_default": {"votes_per_pair": by_default[0], "agreement": by_default[1]},
        "worth": known.worth,
        "prior": known.prior,
        "pairs": len(pairs),
        "agreement_with_sampled": agreement([whole(one) for one in thoughts], [whole(one) for one in samples]),
    }


def sampled_votes(service: Running, pool: Pool, pairs: Sequence[Pair]) -> list[list[PairVotes]]:
    """All sampled votes on every pair, one in each order at a time."""
    profile, each = PROFILES[service.public.info().profile], _default("votes") // 2

    def ask(pair: Pair) -> list[PairVotes]:
        images = {image: encode_image(pool.bytes_of(image)) for image in pair}
        prompts = [
            RolloutPrompt(task="compare", images=list(shown), samples=each, seed=seed)
            for seed, shown in enumerate((pair, pair[::-1]))
        ]
        request = RolloutRequest(images=images, prompts=prompts, temperature=_default("vote_temperature"))
        orders = [
            [parse_vote(one.text, profile) for one in result.completions]
            for result in service.operators.rollouts(request).results
        ]
        return [
            PairVotes(
                *pair,
                forward=[float(one == 0), float(one == 1)],
                backward=[float(other == 1), float(other == 0)],
                unreadable=float((one is None) + (other is None)),
                version="",
            )
            for one, other in zip(*orders, strict=True)
        ]

    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        return list(threads.map(ask, pairs))


def whole(drawn: Sequence[PairVotes]) -> PairVotes:
    """The votes of several thoughts together."""
    votes, *more = drawn
    for one in more:
        votes = added(votes, one)
    return votes


def _until(
    drawn: Sequence[Sequence[PairVotes]], error: float, change: Callable[[PairVotes, int], float]
) -> tuple[float, float]:
    """The share of votes that are asked for, and the agreement of the labels with those of all votes."""
    stopped, asked, all_votes = [], 0, 0
    for row in drawn:
        votes = row[0]
        for one in row[1:]:
            if change(votes, 2 * len(row) - votes.asked) <= error:
                break
            votes = added(votes, one)
        stopped.append(votes)
        asked, all_votes = asked + votes.asked, all_votes + 2 * len(row)
    return asked / all_votes, agreement(stopped, [whole(row) for row in drawn])


def _fewest(stop: Callable[..., tuple[float, float]], drawn: Sequence[Sequence[PairVotes]]) -> float:
    """The smallest share of votes whose labels agree well enough with those of all."""
    return min(share for share, agreed in (stop(drawn, error=error) for error in _ERRORS) if agreed >= AGREEMENT)


def _majority_change(votes: PairVotes, left: int) -> float:
    counts = sorted((int(votes.first_votes), int(votes.second_votes)))
    return change(counts[0], counts[1], left)


@contextmanager
def _generated(service: Running) -> Iterator[Callable[[], float]]:
    """The number of tokens that the engine has generated since."""

    def count() -> float:
        metrics = httpx.get(f"{service.operator_url}/metrics").text
        return sum(map(float, _GENERATED.findall(metrics)))

    before = count()
    yield lambda: count() - before


def _default(name: str) -> Any:
    return EvolveSettings.model_fields[name].default
