"""Shares of pairs, with intervals that know that pairs share images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.proportion import proportion_confint

from trainer.voting.vote import PairVotes, margin

Array = NDArray[np.float64]
Dyads = NDArray[np.int_]
"""(P, 2) The numbers of each pair's images."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of pairs, with its interval of 95 %."""

    share: float
    low: float
    high: float
    pairs: int


def rate(values: Array, dyads: Dyads) -> Rate | None:
    """The mean of (P,) values from 0 to 1, and Wilson's interval; None without pairs.

    Pairs of one image are not independent: P is divided by the design effect first, as Korn and Graubard (Survey
    Methodology 24, 1998) do for shares in clusters.
    """
    if not len(values):
        return None
    share, effective = float(values.mean()), len(values) / design_effect(values, dyads)
    low, high = proportion_confint(share * effective, effective, method="wilson")
    return Rate(share, float(low), float(high), len(values))


def design_effect(values: Array, dyads: Dyads) -> float:
    """The variance of the mean, as a multiple of that of P independent answers of 0 or 1; 1 if all values are equal.

    The variance is the robust one of dyads: residuals of pairs with a common image may go together in any way (Aronow,
    Samii and Assenova, Political Analysis 23, 2015, with an intercept alone). It is never less than without them.
    """
    mean = values.mean()
    residuals = values - mean
    alone = float((residuals**2).sum())
    of_images = np.bincount(dyads.ravel(), np.repeat(residuals, 2))
    together = float((of_images**2).sum()) - alone  # a pair meets itself in both of its images
    return max(alone, together) / float(len(values) * mean * (1 - mean)) if alone > 0 else 1.0


def numbered(pairs: list[tuple[str, str]]) -> Dyads:
    """The images' names as numbers."""
    numbers: dict[str, Any] = {}
    flat = [numbers.setdefault(image, len(numbers)) for pair in pairs for image in pair]
    return np.array(flat, np.int_).reshape(-1, 2)


Part = NDArray[np.bool_]
"""(P,) Which values lie in a part."""


def quantiles(values: Array, parts: int) -> list[Part]:
    """Parts of about as many values each, from the smallest on; equal values stay together, so there may be fewer."""
    return _between(values, np.asarray(np.quantile(values, np.linspace(0, 1, parts + 1)))) if len(values) else []


def equal_widths(values: Array, parts: int, low: float, high: float) -> list[Part]:
    """Parts of equal width from `low` to `high`; empty ones are left out."""
    return _between(values, np.linspace(low, high, parts + 1))


def _between(values: Array, edges: Array) -> list[Part]:
    """Each part has its lower edge, the last one both."""
    inner = np.unique(edges[1:-1])
    places = np.searchsorted(inner, values, side="right")
    return [places == place for place in np.unique(places)]


@dataclass(frozen=True, slots=True)
class Judged:
    """P pairs of which the truth prefers one image and a vote was readable."""

    label: Array
    """(P,) 1 where the label is right, 0 where it is wrong, 0.5 for a tie."""
    majority: Array
    """(P,) The same of the majority, however narrow: before the tie margin."""
    margin: Array
    """(P,) How decided the vote is, 0 to 1."""
    difference: Array
    """(P,) How far apart the images truly are; above 0."""
    dyads: Dyads

    def part(self, chosen: NDArray[np.bool_]) -> Judged:
        """Some of the pairs."""
        return Judged(*(getattr(self, name)[chosen] for name in self.__slots__))


def judged(votes: Sequence[PairVotes], truth: Mapping[str, float]) -> Judged:
    """Ties of the truth, pairs without a label and images whose truth is not known are left out."""
    known = [
        (vote, truth[vote.first] - truth[vote.second])
        for vote in votes
        if vote.label is not None and vote.first in truth and vote.second in truth
    ]
    decided = [(vote, difference) for vote, difference in known if difference != 0]
    return Judged(
        label=np.array([right(vote, difference) for vote, difference in decided], float),
        majority=np.array([right(majority(vote), difference) for vote, difference in decided], float),
        margin=np.array([margin(vote) for vote, _ in decided], float),
        difference=np.array([abs(difference) for _, difference in decided], float),
        dyads=numbered([(vote.first, vote.second) for vote, _ in decided]),
    )


def right(vote: PairVotes, difference: float) -> float | None:
    """How right a label is where the first image is truly better by `difference`: 1, 0.5 for a tie, or 0; None where
    the truth is a tie or the pair has no label."""
    if difference == 0 or vote.label is None:
        return None
    return 1 - abs(vote.label - float(difference > 0))


def majority(vote: PairVotes) -> PairVotes:
    """The vote, tied only by equal votes."""
    return replace(vote, tie_margin=0.0)


PARTS = 8


@dataclass(frozen=True, slots=True)
class Row:
    """The pairs of one part of a range."""

    mean: float
    """Of what the parts are made by."""
    label: Rate | None
    """How often the label is right; a tie counts half."""
    majority: Rate | None
    """How often the majority is right, however narrow: what the labels would be without a tie margin."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How often a vote is right in which the winner has a share s of the readable votes.

    A calibrated one is right with probability s. The majority before the tie margin is judged. Sampled votes that end
    once they are decided have larger shares than all K would: they look surer than they are.
    """

    rows: list[Row]
    """`mean` is that of s, in equal widths from 0.5 to 1."""
    error: float | None
    """Expected calibration error (Guo et al., arXiv 1706.04599): the mean of |s - share right| over the rows' pairs."""


def overall(pairs: Judged) -> Row:
    """Of all pairs, with their mean margin."""
    return _row(pairs, pairs.margin, np.ones(len(pairs.margin), bool))


def by_margin(pairs: Judged) -> list[Row]:
    """From the closest to the most decided, about as many pairs a row."""
    return _rows(pairs, pairs.margin, quantiles(pairs.margin, PARTS))


def by_difference(pairs: Judged) -> list[Row]:
    """From alike to far apart, in equal widths up to the largest true difference."""
    parts = equal_widths(pairs.difference, PARTS, 0, pairs.difference.max(initial=0))
    return _rows(pairs, pairs.difference, parts)


def calibration(pairs: Judged) -> Calibration:
    """See `Calibration`."""
    share = (1 + pairs.margin) / 2
    rows = _rows(pairs, share, equal_widths(share, PARTS, 0.5, 1))
    errors = [(abs(row.mean - row.majority.share), row.majority.pairs) for row in rows if row.majority]
    total = sum(count for _, count in errors)
    return Calibration(rows, sum(error * count for error, count in errors) / total if total else None)


def _rows(pairs: Judged, values: Array, parts: Sequence[Part]) -> list[Row]:
    return [_row(pairs, values, part) for part in parts]


def _row(pairs: Judged, values: Array, part: Part) -> Row:
    chosen = pairs.part(part)
    mean = float(values[part].mean()) if part.any() else 0.0
    return Row(mean, rate(chosen.label, chosen.dyads), rate(chosen.majority, chosen.dyads))


@dataclass(frozen=True, slots=True)
class Changes:
    """Pairs that both versions labelled."""

    pairs: int
    changed: int
    """Those whose label is another one."""
    judged: int
    """Those of which the truth prefers one image."""
    better: int
    """Of those judged, how many labels are nearer to the truth: a tie lies half way between right and wrong."""
    worse: int
    accuracy_before: float | None
    """Share right of those judged; a tie counts half."""
    accuracy_after: float | None


def changes(before: Sequence[PairVotes], after: Sequence[PairVotes], truth: Mapping[str, float]) -> Changes | None:
    """None if no pair has a label of both."""
    earlier = {(vote.first, vote.second): vote for vote in before if vote.label is not None}
    labelled = [vote for vote in after if vote.label is not None and (vote.first, vote.second) in earlier]
    both = [(earlier[vote.first, vote.second], vote) for vote in labelled]
    if not both:
        return None
    known = [pair for pair in both if {pair[1].first, pair[1].second} <= truth.keys()]
    scores = [_scores(*pair, truth) for pair in known]
    judged = [(was, now) for was, now in scores if was is not None and now is not None]
    return Changes(
        pairs=len(both),
        changed=sum(was.label != now.label for was, now in both),
        judged=len(judged),
        better=sum(now > was for was, now in judged),
        worse=sum(now < was for was, now in judged),
        accuracy_before=sum(was for was, _ in judged) / len(judged) if judged else None,
        accuracy_after=sum(now for _, now in judged) / len(judged) if judged else None,
    )


def _scores(before: PairVotes, after: PairVotes, truth: Mapping[str, float]) -> tuple[float | None, float | None]:
    difference = truth[after.first] - truth[after.second]
    return right(before, difference), right(after, difference)
