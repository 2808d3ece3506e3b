"""`evolve --dry-run`: the cost of a run in counts, hours and disk, before it begins."""

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

from evoquality import ServiceError
from service.engine.memory import Shape
from service.errors import VersionError
from trainer.errors import NothingToLearn, Occupied, RankLost, Unreachable, UserError, WrongProfile, WrongVersion
from trainer.evaluation.benchmarks.load import load
from trainer.files import read_json
from trainer.pool.sources import Sources
from trainer.pricing.memory import least_bytes
from trainer.pricing.rehearsal import Rates, rehearse
from trainer.progress import duration
from trainer.promotion.behaviour import answers_of_one_look
from trainer.settings.evolve import EvolveSettings
from trainer.training import distributed
from trainer.training.choices import starting_weights, with_choices
from trainer.training.fit import Fit
from trainer.voting.groups import STRENGTH_SAMPLES, chain_length

_COUNTING_S = 20.0
_LONGEST_FILE = 20 * 2**20


@dataclass(frozen=True, slots=True)
class Line:
    """One stage of a round. Seconds and bytes are None if no service was there to measure with."""

    stage: str
    amounts: dict[str, int]
    seconds: float | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """The cost of a round and of all rounds. Bytes are those on disk at the end."""

    rounds: int
    lines: list[Line]
    unmeasured: str | None
    """The reason if there are no times."""
    memory: Fit | None = None
    """Of the training, if it was measured."""
    least_memory: int | None = None
    """Bytes that the training takes on a GPU at the least, computed, if it was not measured."""

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
    """Counts the work of a run, and measures its time and disk against the service if that answers.

    Writes only a temporary folder and, while it measures, adapters that it removes. None on other ranks than torchrun's
    0, which only take part in the measuring.
    """
    sources = Sources(
        settings.pool, _LONGEST_FILE, settings.pool_column, without=settings.run, follow_links=settings.follow_links
    )
    probed = len(load(settings.probe).images) if settings.probe else 0
    try:
        settings = with_choices(settings)
        rates = distributed.run_on_main(settings.device, settings.dtype, partial(rehearse, settings, sources))
    except RankLost:  # rank 0 could not measure, and says why
        return None
    except (NothingToLearn, Occupied, Unreachable, WrongProfile, WrongVersion, UserError, ServiceError) as error:
        found = counts(settings, *count(sources, _COUNTING_S), exact=settings.votes_by == "exact", probed=probed)
        why = str(error) or type(error).__name__
        return Price(settings.rounds, _lines(found), unmeasured=why, least_memory=_least_memory(settings))
    if rates is None:
        return None
    found = counts(settings, *count(sources, _COUNTING_S), exact=rates.exact, probed=probed)
    return Price(settings.rounds, measured(found, rates), unmeasured=None, memory=rates.memory)


def _least_memory(settings: EvolveSettings) -> int | None:
    """Computed from the version that the run would start from; None without one, or for another architecture."""
    try:
        weights = starting_weights(settings)
        shape = Shape.of(read_json(weights / "config.json")) if weights else None
    except (KeyError, UserError, VersionError):
        return None
    return round(least_bytes(shape, settings, distributed.world_size())) if shape else None


def measured(c: Counts, r: Rates) -> list[Line]:
    """A round's stages with their seconds and bytes: counts times the cost of one."""
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
    """The counts of one round."""

    files: int
    """Entries of the pool; a lower bound unless `counted`."""
    counted: bool
    originals: int
    images: int
    """Originals and variants, drawn or planned."""
    variants: int
    """The variants that the round uses and makes."""
    pairs: int
    votes: int
    """At most: two passes a pair if votes are exact, K answers if they are sampled and none is decided early."""
    steps: int
    rollouts: int
    """Answers sampled in training."""
    scored: int
    """Answers before the training: for informative pairs, and for the mean scores of the regression reward."""
    gate_answers: int
    """Answers before and after training, those on the labelled probe included."""
    promotion_answers: int
    """Answers of one look at the held-back images."""


def counts(settings: EvolveSettings, files: int, counted: bool, *, exact: bool, probed: int = 0) -> Counts:
    """The counts of a round; `probed` is the number of images of the labelled probe.

    Pairs that two groups share are asked only once, so the true number may be a little smaller.
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
    look = answers_of_one_look(s, images)
    return Counts(
        files=files,
        counted=counted,
        originals=originals,
        images=images,
        variants=round(used * s.variants / (1 + s.variants)),
        pairs=pairs,
        votes=pairs * (2 if exact else s.votes),
        steps=steps,
        rollouts=steps * s.group_size * s.samples,
        scored=scored,
        gate_answers=2 * (look + probed * s.samples),
        promotion_answers=look,
    )


def count(entries: Iterable[object], seconds: float) -> tuple[int, bool]:
    """The number of entries met within so many seconds, and True if those are all."""
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
        amounts = ", ".join(f"{amount:,} {name}" for name, amount in line.amounts.items())
        table.add_row(line.stage, amounts, _time(line.seconds), _size(line.bytes))
    console.print(table)
    if price.unmeasured:
        console.print(f"No times and disk; nothing was measured: {price.unmeasured}", highlight=False, soft_wrap=True)
        if price.least_memory:
            console.print(
                f"The training takes at least {_size(price.least_memory)} of a GPU, computed.", soft_wrap=True
            )
    else:
        hours, size = _time(3600 * (price.hours or 0)), _size(price.bytes)
        console.print(str(price.memory), highlight=False, soft_wrap=True)
        console.print(f"{price.rounds} rounds: about {hours} and {size} of disk, the swaps aside.")


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


def _time(seconds: float | None) -> str:
    return "?" if seconds is None else duration(seconds)


def _size(size: int | None) -> str:
    return "?" if size is None else decimal(size) if size else ""
