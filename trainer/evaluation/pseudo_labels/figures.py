"""Quality of a set of votes in JSON form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from trainer.evaluation.pseudo_labels import accuracy
from trainer.evaluation.pseudo_labels.accuracy import judged, majority
from trainer.evaluation.pseudo_labels.consistency import (
    COIN_FLIPS,
    Cycles,
    consistence,
    cycles,
    position_bias,
    position_by_difference,
)
from trainer.voting.groups import Group
from trainer.voting.majority import expected_agreement
from trainer.voting.votes import PairVotes, margin


def without_truth(votes: Sequence[PairVotes], groups: Sequence[Group]) -> dict[str, Any]:
    """Figures that need no truth: counts and margins, circular triples, consistence, position bias."""
    majorities = [majority(vote) for vote in votes]
    found = position_bias(votes)
    return {
        **_counts(votes),
        "cycles": {
            "labels": _cycles(cycles(votes)),
            "majorities": _cycles(cycles(majorities)),
            "coin_flips": COIN_FLIPS,
            "consistence": consistence(majorities, groups),
        },
        "position": asdict(found) if found else None,
    }


def beside_truth(votes: Sequence[PairVotes], truth: Mapping[str, float]) -> dict[str, Any]:
    """Accuracy against `truth` by image (higher is better); None where every truth is a tie."""
    pairs = judged(votes, truth)
    return {
        "accuracy": {
            **asdict(accuracy.overall(pairs)),
            "by_margin": [asdict(row) for row in accuracy.by_margin(pairs)],
            "by_difference": [asdict(row) for row in accuracy.by_difference(pairs)],
            "calibration": asdict(accuracy.calibration(pairs)),
        },
        "position_by_difference": [asdict(row) for row in position_by_difference(votes, truth)],
    }


def _counts(votes: Sequence[PairVotes]) -> dict[str, Any]:
    readable = sum(vote.first_votes + vote.second_votes for vote in votes)
    shown_first = sum(vote.forward[0] + vote.backward[1] for vote in votes)
    return {
        "pairs": len(votes),
        "votes": sum(vote.asked for vote in votes),
        "unreadable": sum(vote.unreadable for vote in votes),
        "exact": sum(1 for vote in votes if vote.by == "exact"),
        "ties": sum(1 for vote in votes if vote.label == 0.5),
        "mean_margin": sum(map(margin, votes)) / len(votes),
        "agreement_with_full_vote": expected_agreement(votes),
        "share_for_the_image_shown_first": shown_first / readable if readable else None,
    }


def _cycles(found: Cycles) -> dict[str, Any]:
    return {**asdict(found), "share": found.share}
