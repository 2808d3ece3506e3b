"""The votes on pairs of images and the pseudo-labels made of them (arXiv 2509.25787, Eq. 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from trainer.files import built, read_jsonl

Pair = tuple[str, str]
By = Literal["samples", "exact", "thoughts"]


@dataclass(frozen=True, slots=True)
class PairVotes:
    """The votes on one pair of images (content ids).

    By `samples` they are counts of sampled answers. By `exact` they are the probabilities of the two answers, that is
    the shares of infinitely many samples; those of each order, `unreadable` included, sum to 1. By `thoughts` they are
    sums of the probabilities behind each of them.
    """

    first: str
    second: str
    forward: list[float]
    """Votes for `first` and for `second` while `first` was shown first."""
    backward: list[float]
    """Votes for `first` and for `second` while `second` was shown first; none where a pair is asked in one order."""
    unreadable: float
    version: str
    by: By = "samples"
    tie_margin: float = 0.0
    """A pair with a smaller `margin` is a tie."""
    cut_off: float = 0.0
    """Answers or thoughts that the limit of tokens ended too early; not in `unreadable`."""

    @property
    def first_votes(self) -> float:
        """Votes for `first` over both orders."""
        return self.forward[0] + self.backward[0]

    @property
    def second_votes(self) -> float:
        """Votes for `second` over both orders."""
        return self.forward[1] + self.backward[1]

    @property
    def asked(self) -> int:
        """Questions asked: one for each sampled answer or thought, or for each order whose probabilities were read."""
        return round(self.first_votes + self.second_votes + self.unreadable + self.cut_off)

    @property
    def label(self) -> float | None:
        """Eq. 1: p*(first, second) is 1, 0.5 or 0 by majority; None if no answer was readable.

        Exact votes are the limit of many samples. They never tie by chance, as close counts do, hence `tie_margin`.
        """
        if self.first_votes + self.second_votes == 0:
            return None
        if margin(self) < self.tie_margin:
            return 0.5
        return 0.5 + 0.5 * ((self.first_votes > self.second_votes) - (self.first_votes < self.second_votes))

    @property
    def share(self) -> float | None:
        """`first`'s share of the readable votes, a soft label; None if no answer was readable."""
        readable = self.first_votes + self.second_votes
        return self.first_votes / readable if readable else None


Take = Callable[[PairVotes], None]
"""Gets the votes on a pair."""


def added(one: PairVotes, more: PairVotes) -> PairVotes:
    """The votes on a pair, and further ones on the same pair."""
    return replace(
        one,
        forward=[a + b for a, b in zip(one.forward, more.forward, strict=True)],
        backward=[a + b for a, b in zip(one.backward, more.backward, strict=True)],
        unreadable=one.unreadable + more.unreadable,
        cut_off=one.cut_off + more.cut_off,
    )


def margin(vote: PairVotes) -> float:
    """|votes for first - for second| over all readable votes: 0 for a tie, 1 for a unanimous vote."""
    readable = vote.first_votes + vote.second_votes
    return abs(vote.first_votes - vote.second_votes) / readable if readable else 0.0


def labels_of(votes: Sequence[PairVotes], *, soft: bool = False) -> dict[Pair, float]:
    """p* of every voted pair, or its soft label, in both directions; pairs without a readable answer are left out."""
    labels: dict[Pair, float] = {}
    for vote in votes:
        label = vote.share if soft else vote.label
        if label is not None:
            labels[vote.first, vote.second] = label
            labels[vote.second, vote.first] = 1 - label
    return labels


def agreement(votes: Sequence[PairVotes], others: Sequence[PairVotes]) -> float:
    """Mean agreement of the labels of the same pairs: 1 for equal ones, 0 for opposite ones, 0.5 for a tie against a
    decided one. Pairs without a label on either side are left out.
    """
    labels = labels_of(others)
    found = [(vote.label, labels.get((vote.first, vote.second))) for vote in votes]
    known = [1 - abs(one - other) for one, other in found if one is not None and other is not None]
    return sum(known) / len(known)


def load(path: Path) -> list[PairVotes]:
    """The votes cast so far."""
    return [built(PairVotes, row) for row in read_jsonl(path)]
