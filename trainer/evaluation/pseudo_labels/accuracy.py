"""How often votes are right: in all, by their margin, by the true difference, and as sure as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.evaluation.pseudo_labels.bins import Part, equal_widths, quantiles
from trainer.evaluation.pseudo_labels.judged import Judged
from trainer.evaluation.pseudo_labels.rates import Array, Rate, rate

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
