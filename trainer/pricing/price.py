"""`evolve --dry-run`: what a run would take, before it begins."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from evoquality import ServiceError
from trainer.errors import Occupied, Unreachable, WrongVersion
from trainer.evaluation.benchmarks.load import load
from trainer.pool.sources import Sources
from trainer.pricing.counts import Counts, count, counts
from trainer.pricing.rehearsal import Rates, rehearse
from trainer.settings.evolve import EvolveSettings
from trainer.training import distributed

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


def price(settings: EvolveSettings) -> Price | None:
    """Counts what a run would do, and measures what that takes against the service, if it answers.

    Writes nothing but a temporary folder and, while it measures, adapters that it removes. None on other ranks than
    torchrun's 0, which only take part in the measuring.
    """
    sources = Sources(settings.pool, _LONGEST_FILE, settings.pool_column, without=settings.run)
    probed = len(load(settings.probe).images) if settings.probe else 0
    try:
        rates = distributed.led(settings.device, settings.dtype, partial(rehearse, settings, sources))
    except (Occupied, Unreachable, WrongVersion, ServiceError, ValueError) as error:
        found = counts(settings, *count(sources, _COUNTING_S), exact=settings.votes_by == "exact", probed=probed)
        return Price(settings.rounds, _lines(found), unmeasured=str(error) or type(error).__name__)
    except ConnectionError:  # rank 0 could not measure, and tells why
        return None
    if rates is None:
        return None
    found = counts(settings, *count(sources, _COUNTING_S), exact=rates.exact, probed=probed)
    return Price(settings.rounds, measured(found, rates), unmeasured=None)


def _lines(c: Counts) -> list[Line]:
    scores = [Line("scores", {"rollouts": c.scored})] if c.scored else []
    files = "files" if c.counted else "files at least"
    return [
        Line("pool", {files: c.files, "originals": c.originals, "images": c.images}),
        Line("variants", {"variants": c.variants}),
        *scores,
        Line("votes", {"pairs": c.pairs, "votes at most": c.votes}),
        Line("GRPO", {"steps": c.steps, "rollouts": c.rollouts}),
        Line("gate", {"rollouts": c.gate_answers}),
        Line("candidate", {"version": 1}),
        Line("promotion", {"rollouts": c.promotion_answers}),
    ]


def measured(c: Counts, r: Rates) -> list[Line]:
    """A round's stages by how much there is of everything and what one of each takes."""
    takes = {
        "pool": (c.files * r.file_seconds, c.originals * r.original_bytes),
        "variants": (c.variants * r.variant_seconds, c.variants * r.variant_bytes),
        "scores": (c.scored * r.answer_seconds, 0),
        "votes": (c.pairs * r.pair_seconds, c.pairs * r.pair_bytes),
        "GRPO": (c.steps * r.step_seconds, r.checkpoint_bytes),
        "gate": (c.gate_answers * r.answer_seconds, 0),
        "candidate": (r.candidate_seconds, r.candidate_bytes),
        "promotion": (c.promotion_answers * r.answer_seconds, 0),
    }
    asked = {"pairs": c.pairs, "votes": round(c.pairs * r.votes_a_pair)}
    return [
        Line(line.stage, asked if line.stage == "votes" else line.amounts, seconds, round(size))
        for line in _lines(c)
        for seconds, size in [takes[line.stage]]
    ]
