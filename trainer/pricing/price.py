"""`evolve --dry-run`: what a run would take, before it begins."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from math import comb
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from service.client import ServiceError
from trainer.errors import Occupied, Unreachable, WrongVersion
from trainer.evaluation.benchmarks.load import load
from trainer.pool.sources import Sources
from trainer.pricing.rehearsal import Rates, rehearse
from trainer.promotion.behaviour import COMPARED, VOTES
from trainer.settings.evolve import EvolveSettings
from trainer.training import distributed
from trainer.voting.groups import STRENGTH_SAMPLES, chain_length

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
        rates = distributed.run_on_main(settings.device, settings.dtype, partial(rehearse, settings, sources))
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


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one round."""

    files: int
    """Entries of the pool; at least so many where it was too long to be counted."""
    counted: bool
    originals: int
    images: int
    """Originals and variants, drawn or planned."""
    variants: int
    """Those that the round uses, and makes."""
    pairs: int
    votes: int
    """At most: two passes a pair where votes are exact, K answers where they are sampled and none is decided early."""
    steps: int
    rollouts: int
    """Answers sampled in training."""
    scored: int
    """Answers before the training: they tell which pairs are worth asking, where those are not drawn at random, and the
    mean scores, where the reward is nearness to them."""
    gate_answers: int
    """Before and after, with the labelled probe's."""
    promotion_answers: int
    """Of one look at the held-back images."""


def counts(settings: EvolveSettings, files: int, counted: bool, *, exact: bool, probed: int = 0) -> Counts:
    """The counts of a round; `probed`: images of the labelled probe.

    Pairs that two groups share are asked once: the true number may be a little smaller.
    """
    s = settings
    originals = min(s.originals, files)
    images = originals * (1 + s.variants)
    used = min(images, s.places)
    voted = s.held_back_groups + (s.groups if s.reward == "fidelity" else 0)
    pairs = voted * comb(s.group_size, 2)
    steps = s.groups * s.epochs
    scored = min(images, chain_length(s.groups, s.group_size)) * STRENGTH_SAMPLES if s.pairs == "informative" else 0
    if s.reward == "regression":
        scored += min(images, s.groups * s.group_size) * s.samples
    look = observed(s, images)
    return Counts(
        files, counted, originals, images, round(used * s.variants / (1 + s.variants)), pairs,
        pairs * (2 if exact else s.votes), steps, steps * s.group_size * s.samples, scored,
        2 * (look + probed * s.samples), look,
    )  # fmt: skip


def observed(s: EvolveSettings, images: int) -> int:
    """Answers of one look at the held-back images: scores of each, votes on some pairs in both orders."""
    compared = min(COMPARED, s.held_back_groups * comb(s.group_size, 2))
    return min(images, s.held_back_groups * s.group_size) * s.samples + 2 * VOTES * compared


def count(entries: Iterable[object], seconds: float) -> tuple[int, bool]:
    """How many entries there are, or were met in so many seconds, and whether those are all."""
    deadline = time.monotonic() + seconds
    met = 0
    for _ in entries:
        met += 1
        if time.monotonic() > deadline:
            return met, False
    return met, True


def show(price: Price, console: Console) -> None:
    """Prints a round's stages and the whole run's hours and disk."""
    table = Table("stage", "what it goes through", "time", "disk", title="a round")
    for column in table.columns[2:]:
        column.justify = "right"
    for line in price.lines:
        table.add_row(line.stage, _amounts(line), _time(line.seconds), _size(line.bytes))
    console.print(table)
    if price.unmeasured:
        console.print(f"No times and disk; nothing was measured: {price.unmeasured}", highlight=False, soft_wrap=True)
    else:
        hours, size = _time(3600 * (price.hours or 0)), _size(price.bytes)
        console.print(f"{price.rounds} rounds: about {hours} and {size} of disk, the swaps aside.")


def _amounts(line: Line) -> str:
    return ", ".join(f"{amount:,} {name}" for name, amount in line.amounts.items())


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return (
        f"{seconds:.1f} s"
        if seconds < 120
        else f"{seconds / 60:.1f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _size(size: int | None) -> str:
    return "?" if size is None else decimal(size) if size else ""
