"""`evolve --dry-run`: what a run would take, before it begins."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import httpx

from service.client import ServiceError
from trainer.errors import Unreachable, WrongVersion
from trainer.pool.sources import Sources
from trainer.pricing.counts import Counts, count, counts
from trainer.pricing.rehearsal import Rates, rehearse
from trainer.settings import EvolveSettings

_COUNTING_S = 20.0
_LONGEST_FILE = 20 * 2**20


@dataclass(frozen=True, slots=True)
class Line:
    """One stage of a round. Seconds and bytes are None where no service was there to measure with."""

    stage: str
    amounts: dict[str, int]
    seconds: float | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """What a round takes, and all rounds. Bytes are those on disk when it ends."""

    rounds: int
    lines: list[Line]
    unmeasured: str | None
    """Why there are no times, if there are none."""

    @property
    def hours(self) -> float | None:
        """Of all rounds."""
        return None if self.unmeasured else self.rounds * sum(line.seconds or 0 for line in self.lines) / 3600

    @property
    def bytes(self) -> int | None:
        """Of all rounds."""
        return None if self.unmeasured else self.rounds * sum(line.bytes or 0 for line in self.lines)

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return {**asdict(self), "hours": self.hours, "bytes": self.bytes}


def price(settings: EvolveSettings) -> Price:
    """Counts what a run would do, and measures what that takes against the service, if it answers.

    Writes nothing but a temporary folder and, while it measures, adapters that it removes.
    """
    sources = Sources(settings.pool, _LONGEST_FILE, settings.pool_column, without=settings.run)
    files, counted = count(sources, _COUNTING_S)
    try:
        rates = rehearse(settings, sources)
    except (Unreachable, WrongVersion, ServiceError, httpx.TransportError, ValueError) as error:
        found = counts(settings, files, counted, exact=settings.votes_by == "exact")
        return Price(settings.rounds, _lines(found), unmeasured=str(error) or type(error).__name__)
    found = counts(settings, files, counted, exact=rates.exact)
    return Price(settings.rounds, measured(settings, found, rates), unmeasured=None)


def _lines(c: Counts) -> list[Line]:
    return [
        Line("pool", {"files": c.files, "originals": c.originals, "images": c.images}),
        Line("variants", {"variants": c.variants}),
        Line("votes", {"pairs": c.pairs, "votes at most": c.votes}),
        Line("GRPO", {"steps": c.steps, "rollouts": c.rollouts}),
        Line("gate", {"rollouts": c.gate_rollouts}),
        Line("candidate", {"version": 1}),
    ]


def measured(s: EvolveSettings, c: Counts, r: Rates) -> list[Line]:
    """A round's stages by how much there is of everything and what one of each takes."""
    pool, variants, votes, training, gate, candidate = _lines(c)
    asked = {"pairs": c.pairs, "votes": round(c.pairs * r.votes_a_pair)}
    return [
        Line(pool.stage, pool.amounts, c.files * r.file_seconds, round(c.originals * r.original_bytes)),
        Line(variants.stage, variants.amounts, c.variants * r.variant_seconds, round(c.variants * r.variant_bytes)),
        Line(votes.stage, asked, c.pairs * r.pair_seconds, round(c.pairs * r.pair_bytes)),
        Line(training.stage, training.amounts, c.steps * r.step_seconds, r.checkpoint_bytes),
        Line(gate.stage, gate.amounts, 2 * s.held_back_groups * r.rollout_seconds, 0),
        Line(candidate.stage, candidate.amounts, 0.0, r.candidate_bytes),
    ]
