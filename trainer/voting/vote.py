"""The offline stage (arXiv 2509.25787, Eq. 1): every pair is asked K times, and the majority is its pseudo-label.

Half of a pair's votes are asked in each order of presentation, against position bias. Votes are appended to a file
as they come, so a killed stage goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from service.answers import parse_vote
from service.contract import RolloutPrompt, RolloutRequest, RolloutResult
from service.prompts import Profile
from trainer.files import append_jsonl, read_jsonl
from trainer.pool.pool import Pool
from trainer.workers.spread import AsyncWorkers

Pair = tuple[str, str]
_STRIDE = 64
"""Between the seeds of two prompts: sample i of a prompt is drawn with seed + i."""


@dataclass(frozen=True, slots=True)
class PairVotes:
    """The votes on one pair of images (content ids)."""

    first: str
    second: str
    forward: list[int]
    """Votes for `first` and for `second` while `first` was shown first."""
    backward: list[int]
    """Votes for `first` and for `second` while `second` was shown first."""
    unreadable: int
    version: str

    @property
    def first_votes(self) -> int:
        """Votes for `first` over both orders."""
        return self.forward[0] + self.backward[0]

    @property
    def second_votes(self) -> int:
        """Votes for `second` over both orders."""
        return self.forward[1] + self.backward[1]

    @property
    def label(self) -> float | None:
        """Eq. 1: p*(first, second) is 1, 0.5 or 0 by majority; None if no answer was readable."""
        if self.first_votes + self.second_votes == 0:
            return None
        return 0.5 + 0.5 * ((self.first_votes > self.second_votes) - (self.first_votes < self.second_votes))


def labels_of(votes: list[PairVotes]) -> dict[Pair, float]:
    """p* of every voted pair, in both directions; pairs without a readable answer are left out."""
    labels: dict[Pair, float] = {}
    for vote in votes:
        if vote.label is not None:
            labels[vote.first, vote.second] = vote.label
            labels[vote.second, vote.first] = 1 - vote.label
    return labels


def load(path: Path) -> list[PairVotes]:
    """The votes cast so far."""
    return [PairVotes(**row) for row in read_jsonl(path)]


async def cast(
    pairs: list[Pair],
    pool: Pool,
    workers: AsyncWorkers,
    path: Path,
    *,
    profile: Profile,
    votes: int,
    temperature: float,
    seed: int,
    version: str,
    advance: Callable[[int], None],
    batch: int = 24,
    concurrency: int = 3,
) -> list[PairVotes]:
    """Asks every pair not yet in `path`, `votes` times in all, and appends the results.

    Each pair's answers are seeded by the round's seed and the pair's place, so a resumed stage casts the same
    votes. All votes are of one `version`: the service refuses once another is active.

    Raises:
        WrongVersion, Unreachable, ServiceError: see `AsyncWorkers.rollouts`.
    """
    done = {(vote.first, vote.second) for vote in load(path)}
    advance(len(done))
    numbered = [(number, pair) for number, pair in enumerate(pairs) if pair not in done]
    limit = asyncio.Semaphore(concurrency)

    async def ask(chunk: list[tuple[int, Pair]]) -> None:
        async with limit:
            request = _request(chunk, pool, votes // 2, temperature, seed, version)
            response = await workers.rollouts(request)
        results = iter(response.results)
        rows = [_count(pair, next(results), next(results), profile, response.version) for _, pair in chunk]
        append_jsonl(path, map(asdict, rows))
        advance(len(rows))

    await asyncio.gather(*(ask(numbered[start : start + batch]) for start in range(0, len(numbered), batch)))
    return load(path)


def _request(
    chunk: list[tuple[int, Pair]], pool: Pool, votes: int, temperature: float, seed: int, version: str
) -> RolloutRequest:
    """Both orders of every pair of the chunk."""
    ids = {image for _, pair in chunk for image in pair}
    prompts = []
    for number, (first, second) in chunk:
        for order, images in enumerate(([first, second], [second, first])):
            prompts.append(
                RolloutPrompt(
                    task="compare",
                    images=images,
                    samples=votes,
                    seed=(seed * 1_000_003 + _STRIDE * (2 * number + order)) % 2**31,
                )
            )
    encoded = {image: base64.b64encode(pool.bytes_of(image)).decode() for image in ids}
    return RolloutRequest(images=encoded, prompts=prompts, temperature=temperature, version=version)


def _count(pair: Pair, forward: RolloutResult, backward: RolloutResult, profile: Profile, version: str) -> PairVotes:
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
