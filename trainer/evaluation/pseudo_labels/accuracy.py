"""Accuracy of votes against the truth: overall, by margin and by true difference, calibration, changes.

Rates of pairs have intervals that account for pairs sharing images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.proportion import proportion_confint

from trainer.voting.votes import PairVotes, margin

Array = NDArray[np.float64]
Dyads = NDArray[np.int_]
"""(P, 2) Indices of each pair's images."""
Part = NDArray[np.bool_]
"""(P,) Mask of the values in a part."""
PARTS = 8


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of pairs with its 95 % interval."""

    share: float
    low: float
    high: float
    pairs: int


def rate(values: Array, dyads: Dyads) -> Rate | None:
    """Mean of (P,) values from 0 to 1 with Wilson's interval; None without pairs.

    Pairs with a common image are dependent, so P is divided by the design effect first, as Korn and Graubard (Survey
    Methodology 24, 1998) do for shares in clusters.
    """
    if not len(values):
        return None
    share, effective = float(values.mean()), len(values) / design_effect(values, dyads)
    low, high = proportion_confint(share * effective, effective, method="wilson")
    return Rate(share, float(low), float(high), len(values))


def design_effect(values: Array, dyads: Dyads) -> float:
    """Variance of the mean relative to that of P independent answers of 0 or 1; 1 if all values are equal.

    Uses the dyadic-robust variance, which allows any correlation between pairs with a common image (Aronow, Samii and
    Assenova, Political Analysis 23, 2015, intercept only), and at least the variance without such correlation.
    """
    mean = values.mean()
    residuals = values - mean
    independent = float((residuals**2).sum())
    of_images = np.bincount(dyads.ravel(), np.repeat(residuals, 2))
    dyadic = float((of_images**2).sum()) - independent  # a pair is counted at both of its images
    return max(independent, dyadic) / float(len(values) * mean * (1 - mean)) if independent > 0 else 1.0


def numbered(pairs: list[tuple[str, str]]) -> Dyads:
    """Pairs of image names as (P, 2) indices."""
    numbers: dict[str, Any] = {}
    flat = [numbers.setdefault(image, len(numbers)) for pair in pairs for image in pair]
    return np.array(flat, np.int_).reshape(-1, 2)


def quantiles(values: Array, parts: int) -> list[Part]:
    """Parts of about equal size, in ascending order; equal values share a part, so there may be fewer."""
    return _between(values, np.asarray(np.quantile(values, np.linspace(0, 1, parts + 1)))) if len(values) else []


def equal_widths(values: Array, parts: int, low: float, high: float) -> list[Part]:
    """Non-empty parts of equal width from `low` to `high`."""
    return _between(values, np.linspace(low, high, parts + 1))


def _between(values: Array, edges: Array) -> list[Part]:
    """Each part includes its lower edge; the last one includes both."""
    inner = np.unique(edges[1:-1])
    places = np.searchsorted(inner, values, side="right")
    return [places == place for place in np.unique(places)]


@dataclass(frozen=True, slots=True)
class Judged:
    """P voted pairs with a readable vote, of which the truth prefers one image."""

    label: Array
    """(P,) 1 where the label is right, 0 where it is wrong, 0.5 for a tie."""
    majority: Array
    """(P,) The same for the bare majority, without the tie margin."""
    margin: Array
    """(P,) Margin of the vote, 0 to 1."""
    difference: Array
    """(P,) True difference of the images; above 0."""
    dyads: Dyads

    def part(self, chosen: NDArray[np.bool_]) -> Judged:
        """The selected pairs."""
        return Judged(*(getattr(self, name)[chosen] for name in self.__slots__))


def judged(votes: Sequence[PairVotes], truth: Mapping[str, float]) -> Judged:
    """Compares votes with the truth. Leaves out true ties, pairs without a label and images without a truth."""
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
    """Correctness of a label if the first image is truly better by `difference`: 1, 0.5 for a tie, or 0.

    None if the truth is a tie or the pair has no label.
    """
    if difference == 0 or vote.label is None:
        return None
    return 1 - abs(vote.label - float(difference > 0))


def majority(vote: PairVotes) -> PairVotes:
    """The vote without a tie margin: a tie only for equal votes."""
    return replace(vote, tie_margin=0.0)


@dataclass(frozen=True, slots=True)
class Row:
    """Accuracy of the pairs in one part of a range."""

    mean: float
    """Mean of the binned quantity."""
    label: Rate | None
    """Share of right labels; a tie counts half."""
    majority: Rate | None
    """Share of right majorities: the labels without a tie margin."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Accuracy by the winner's share s of the readable votes; a calibrated vote is right with probability s.

    Uses the majority without the tie margin. Sampled votes that stop early have larger shares than all K votes would,
    so they look overconfident.
    """

    rows: list[Row]
    """Rows of equal width in s from 0.5 to 1."""
    error: float | None
    """Expected calibration error (Guo et al., arXiv 1706.04599): the mean of |s - share right| over the rows' pairs."""


def overall(pairs: Judged) -> Row:
    """Accuracy over all pairs, with their mean margin."""
    return _row(pairs, pairs.margin, np.ones(len(pairs.margin), bool))


def by_margin(pairs: Judged) -> list[Row]:
    """Rows of about equal size, from the smallest to the largest margin."""
    return _rows(pairs, pairs.margin, quantiles(pairs.margin, PARTS))


def by_difference(pairs: Judged) -> list[Row]:
    """Rows of equal width in the true difference, in ascending order."""
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
    """Pairs labelled by both versions."""

    pairs: int
    changed: int
    """Number of pairs whose label differs."""
    judged: int
    """Number of pairs of which the truth prefers one image."""
    better: int
    """Of those judged, number of labels nearer to the truth; a tie is half right."""
    worse: int
    accuracy_before: float | None
    """Share of right labels among those judged; a tie counts half."""
    accuracy_after: float | None


def changes(before: Sequence[PairVotes], after: Sequence[PairVotes], truth: Mapping[str, float]) -> Changes | None:
    """Compares the labels of two versions; None if no pair is labelled by both."""
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
