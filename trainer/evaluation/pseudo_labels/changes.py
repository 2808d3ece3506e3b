"""How labels changed from one version to another, and whether for the better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.evaluation.pseudo_labels.judged import right
from trainer.voting.votes import PairVotes


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
