"""Audits a round's votes against the known truth of the demo's pool, whose originals are undamaged.

The truth (`trainer/demo/truth.py`) is looked up after the round, from the round's files; the round never sees it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.demo.truth import quality
from trainer.errors import UserError
from trainer.evaluation.pseudo_labels.accuracy import changes, judged, right
from trainer.evaluation.pseudo_labels.figures import beside_truth
from trainer.pool.pool import Pool
from trainer.voting.votes import Pair, PairVotes, load, margin


@dataclass(frozen=True, slots=True)
class Audit:
    """Accuracy of the labels, and the right and wrong pairs with the largest margins."""

    accuracy: float
    """Share of right labels; a tie counts half."""
    pairs: int
    """Number of pairs of which the truth prefers one image."""
    right: list[Pair]
    wrong: list[Pair]


def audit(votes: Sequence[PairVotes], truth: Mapping[str, float], *, examples: int = 24) -> Audit:
    """Audits votes. Raises UserError if the truth prefers no image of any pair."""
    found = judged(votes, truth).label
    if not len(found):
        raise UserError("none of these pairs has a label and a truth that prefers one image")
    surest = sorted(votes, key=margin, reverse=True)
    scores = [(vote, right(vote, truth[vote.first] - truth[vote.second])) for vote in surest]
    known, mistaken = ([(vote.first, vote.second) for vote, score in scores if score == wanted] for wanted in (1, 0))
    return Audit(float(found.mean()), len(found), known[:examples], mistaken[:examples])


def audit_round(folder: Path, before: Path | None) -> dict[str, Any]:
    """Contents of a round's `audit.json`, from its folder and that of the round before, which may share pairs."""
    votes, truth = load(folder / "votes.jsonl"), true_qualities(Pool.load(folder / "pool.jsonl"))
    found = audit(votes, truth)
    shared = changes(load(before / "votes.jsonl"), votes, truth) if before else None
    return {
        "accuracy_on_audit": found.accuracy,
        "pairs_audited": found.pairs,
        "right": found.right,
        "wrong": found.wrong,
        **beside_truth(votes, truth),
        "changes": asdict(shared) if shared else None,
    }


def true_qualities(pool: Pool) -> dict[str, float]:
    """Image id -> true quality, 1 to 5, from the distortion that made it."""
    return {
        image.id: 5.0 if image.kind is None or image.level is None else quality([(image.kind, image.level)])
        for image in pool.images
    }
