"""How much of everything a round does, from its settings and the size of the pool alone."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from math import comb

from trainer.promotion.behaviour import COMPARED, VOTES
from trainer.settings.evolve import EvolveSettings
from trainer.voting.informative import SAMPLES, most_drawn


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
    scored = min(images, most_drawn(s.groups, s.group_size)) * SAMPLES if s.pairs == "informative" else 0
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
