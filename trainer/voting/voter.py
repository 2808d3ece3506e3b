"""How a model is asked for its votes: exactly, where it answers without thinking, or by samples."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from service.prompts import Profile
from trainer.pool.pool import Pool
from trainer.settings.votes import VoteSettings
from trainer.voting.exact import ExactVoter
from trainer.voting.sampled import SampledVoter
from trainer.voting.vote import Pair, PairVotes
from trainer.workers.spread import AsyncWorkers


class Voter(Protocol):
    """A way of asking."""

    def ask(self, pairs: Sequence[Pair]) -> AsyncIterator[list[PairVotes]]:
        """The votes on the pairs, a part at a time. Raises as `AsyncWorkers`."""


async def choose(
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
