"""The offline stage: every pair is asked, its votes are appended to a file as they come.

A killed stage goes on where it stopped and casts the same votes. All votes are of one version: the service refuses
once another is active.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from service.concurrency import gather
from trainer.files import append_jsonl
from trainer.voting.vote import Pair, PairVotes, load
from trainer.voting.voter import Voter


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

    await gather(*(ask(left[start : start + batch]) for start in range(0, len(left), batch)))
    return load(path)
