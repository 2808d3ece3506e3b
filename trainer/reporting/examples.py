"""Pairs to look at: those the votes were surest of, those they could not decide, those known to be right or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.errors import InvalidImage
from trainer.files import read_json
from trainer.pool.image import PoolImage
from trainer.pool.pool import Pool
from trainer.reporting.thumbnail import thumbnail
from trainer.voting.vote import PairVotes, load, margin

SHOWN = 4


def examples(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Title -> pairs of a round, with their pictures as data: URLs. A pair whose pictures are gone is left out."""
    votes, pool = load(folder / "votes.jsonl"), Pool.load(folder / "pool.jsonl")
    known = [vote for vote in votes if vote.label is not None and {vote.first, vote.second} <= pool.by_id.keys()]
    decided = sorted(known, key=margin)
    chosen = {"Most decided": decided[::-1], "Closest": decided, **_audited(folder, known)}
    shown = {title: _shown(pairs, pool) for title, pairs in chosen.items()}
    return {title: pairs for title, pairs in shown.items() if pairs}


def _audited(folder: Path, votes: Sequence[PairVotes]) -> dict[str, list[PairVotes]]:
    """The pairs of which an audit knows the truth; a round itself never does."""
    if not (folder / "audit.json").exists():
        return {}
    audit, by_pair = read_json(folder / "audit.json"), {(vote.first, vote.second): vote for vote in votes}
    titles = {"Known to be right": "right", "Known to be wrong": "wrong"}
    return {
        title: [by_pair[first, second] for first, second in audit.get(name, []) if (first, second) in by_pair]
        for title, name in titles.items()
    }


def _shown(votes: Sequence[PairVotes], pool: Pool) -> list[dict[str, Any]]:
    """The first few whose pictures are still there, no image twice."""
    found: list[dict[str, Any]] = []
    used: set[str] = set()
    for vote in votes:
        if used.isdisjoint({vote.first, vote.second}) and (pair := _pair(vote, pool)):
            found.append(pair)
            used |= {vote.first, vote.second}
        if len(found) == SHOWN:
            break
    return found


def _pair(vote: PairVotes, pool: Pool) -> dict[str, Any] | None:
    try:
        pictures = [thumbnail(pool.open(image)) for image in (vote.first, vote.second)]
    except (ValueError, OSError, InvalidImage):
        return None
    share = vote.first_votes / (vote.first_votes + vote.second_votes)
    names = [_name(pool.by_id[image]) for image in (vote.first, vote.second)]
    return {"pictures": pictures, "names": names, "shares": [share, 1 - share]}


def _name(image: PoolImage) -> str:
    return f"{image.kind.replace('_', ' ')} {image.level}" if image.kind else "original"
