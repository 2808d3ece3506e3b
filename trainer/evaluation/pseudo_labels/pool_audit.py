"""How right a round's votes are, where the truth is known: the demo's pool, whose originals are undamaged.

The truth is `trainer/demo/truth.py`'s. It is looked up after the round, from its files; the round never sees it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.demo.truth import quality
from trainer.errors import UserError
from trainer.evaluation.pseudo_labels.changes import changes
from trainer.evaluation.pseudo_labels.figures import beside_truth
from trainer.evaluation.pseudo_labels.judged import judged, right
from trainer.pool.pool import Pool
from trainer.voting.votes import Pair, PairVotes, load, margin


@dataclass(frozen=True, slots=True)
class Audit:
    """How right the labels are, and the pairs of which the votes were surest, by whether they are."""

    accuracy: float
    """Share of right labels; a tie counts half."""
    pairs: int
    """Those judged: the truth prefers one image."""
    right: list[Pair]
    wrong: list[Pair]


def audit(votes: Sequence[PairVotes], truth: Mapping[str, float], *, examples: int = 24) -> Audit:
    """Raises ValueError where the truth prefers no image of any pair."""
    found = judged(votes, truth).label
    if not len(found):
        raise UserError("no pair of these votes has a label and a truth that prefers one image")
    surest = sorted(votes, key=margin, reverse=True)
    scores = [(vote, right(vote, truth[vote.first] - truth[vote.second])) for vote in surest]
    known, mistaken = ([(vote.first, vote.second) for vote, score in scores if score == wanted] for wanted in (1, 0))
    return Audit(float(found.mean()), len(found), known[:examples], mistaken[:examples])


def audit_round(folder: Path, before: Path | None) -> dict[str, Any]:
    """A round's `audit.json`, by its folder and that of the round before, with which it may share some pairs."""
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
    """The truth of every image of a pool, 1 to 5, by the distortion that made it."""
    return {
        image.id: 5.0 if image.kind is None or image.level is None else quality([(image.kind, image.level)])
        for image in pool.images
    }
