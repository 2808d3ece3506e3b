"""Votes that a pair's label takes, and its agreement with the label of all K = 32 votes, on pairs of the demo's pool.

Agreement counts a tie against a decided label half. A label from 32 samples is itself random, a coin toss where the
model finds a pair about even. So each agreement is also given for `settled` full votes only (two-sided binomial test
against a fair coin, p <= 0.05), and beside it the agreement of two full votes with different seeds: the upper bound for
labels that are not computed from the same samples.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from service.prompts import PROFILES
from tests.engine.running import Running
from trainer.demo.audit import audit, true_qualities
from trainer.demo.contents import content
from trainer.pool.pool import Pool, PoolImage, content_id, plan_variants
from trainer.settings.evolve import EvolveSettings
from trainer.voting.voters import ExactVoter, SampledVoter, Voter, cast
from trainer.voting.votes import Pair, PairVotes, agreement
from trainer.workers.spread import AsyncWorkers

PAIRS, CONTENTS, VARIANTS = 400, 64, 10
TEMPERATURES = (1.0, 0.5)


def measure_votes(service: Running, folder: Path) -> dict[str, Any]:
    """Measures with the trainer's default settings; `folder` keeps pictures and votes.

    `per_pair_over_full` and `agreement` are those of sampled votes that stop when decided, against all 32 of the same
    stream; `exact` votes are the default for models that answer without thinking.
    """
    return asyncio.run(_measure(service, folder))


async def _measure(service: Running, folder: Path) -> dict[str, Any]:
    workers = AsyncWorkers([service.operator_url], service.key, service.store, 60, print)
    try:
        bench = _Bench(demo_pool(folder), workers, service.active, folder)
        sides = {f"temperature {temperature}": await bench.sampled(temperature) for temperature in TEMPERATURES}
    finally:
        await workers.close()
    default = sides[f"temperature {_field('vote_temperature')}"]
    return {
        "per_pair_over_full": default["stopped"]["per_pair_over_full"],
        "agreement": default["stopped"]["agreement"],
        "pairs": len(random_pairs(bench.pool)),
        **{name: _field(name) for name in ("votes", "vote_error", "vote_temperature")},
        **sides,
    }


@dataclass(frozen=True)
class _Bench:
    pool: Pool
    workers: AsyncWorkers
    version: str
    folder: Path

    async def sampled(self, temperature: float) -> dict[str, dict[str, float]]:
        """Early-stopped, exact and repeated full votes, each against the full vote at a temperature."""
        voter = SampledVoter(
            self.pool,
            self.workers,
            self.version,
            PROFILES["plain"],
            _field("votes"),
            _field("vote_error"),
            temperature,
            seed=0,
        )
        drawn = replace(voter, error=None)
        full = await self._cast(drawn, f"full-{temperature}")
        again = await self._cast(replace(drawn, seed=1), f"again-{temperature}")
        others = {
            "full": full,
            "stopped": await self._cast(voter, f"stopped-{temperature}"),
            "exact": await self._cast(ExactVoter(self.pool, self.workers, self.version), f"exact-{temperature}"),
            "another_full": again,
        }
        return {name: self._figures(votes, full) for name, votes in others.items()}

    async def _cast(self, voter: Voter, name: str) -> list[PairVotes]:
        file = self.folder / f"{name}.jsonl"
        file.unlink(missing_ok=True)
        return await cast(random_pairs(self.pool), voter, file, advance=lambda count: None)

    def _figures(self, votes: Sequence[PairVotes], full: Sequence[PairVotes]) -> dict[str, float]:
        clear = [one for one in full if settled(one)]
        asked = float(np.mean([one.asked for one in votes]))
        return {
            "votes_a_pair": asked,
            "per_pair_over_full": asked / _field("votes"),
            "agreement": agreement(votes, full),
            "agreement_where_settled": agreement(votes, clear),
            "settled": len(clear) / len(full),
            "accuracy": audit(votes, true_qualities(self.pool)).accuracy,
        }


def settled(votes: PairVotes) -> bool:
    """True if a fair coin gives such a majority in at most 5 % of cases."""
    first, second = int(votes.first_votes), int(votes.second_votes)
    return first + second > 0 and float(binomtest(first, first + second).pvalue) <= 0.05


def demo_pool(folder: Path) -> Pool:
    """The demo's pool: its pictures and distorted variants of each."""
    folder.mkdir(parents=True, exist_ok=True)
    images: list[PoolImage] = []
    for index in range(CONTENTS):
        path = folder / f"{index:03d}.png"
        content("pool", index).save(path)
        name = content_id(path.read_bytes())
        images += [PoolImage(name, str(path), name), *plan_variants(name, folder / "variants", VARIANTS, seed=0)]
    return Pool(images)


def random_pairs(pool: Pool) -> list[Pair]:
    """Pairs of different images, the same ones every time."""
    rng, ids = np.random.default_rng(0), [image.id for image in pool.images]
    drawn = (rng.choice(len(ids), 2, replace=False) for _ in range(PAIRS))
    return list(dict.fromkeys((ids[min(pair)], ids[max(pair)]) for pair in drawn))


def _field(name: str) -> Any:
    """Default value of a setting of the trainer."""
    return EvolveSettings.model_fields[name].default
