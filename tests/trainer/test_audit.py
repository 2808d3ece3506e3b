"""The audit of a round's votes, where the truth is known."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from trainer.demo.truth import quality
from trainer.evaluation.pseudo_labels.pool_audit import audit, audit_round, true_qualities
from trainer.files import write_jsonl
from trainer.pool.pool import Pool, PoolImage
from trainer.voting.votes import PairVotes

POOL = Pool([PoolImage("whole", "", "whole"), *(PoolImage(f"jpeg-{n}", "", "whole", "jpeg", n) for n in (1, 3, 5))])


def votes(first: str, second: str, for_first: int, for_second: int) -> PairVotes:
    return PairVotes(first, second, [for_first, 0], [0, for_second], 0, "v1")


CAST = [
    votes("whole", "jpeg-1", 5, 3), votes("whole", "jpeg-5", 8, 0), votes("jpeg-1", "jpeg-5", 1, 7),
    votes("jpeg-3", "jpeg-1", 5, 3), votes("jpeg-3", "jpeg-5", 4, 4), votes("jpeg-1", "jpeg-1", 8, 0),
]  # fmt: skip


def test_the_surest_right_and_wrong_pairs_come_first_and_ties_count_half() -> None:
    assert quality([("jpeg", 1)]) > quality([("jpeg", 3)]) > quality([("jpeg", 5)])
    found = audit(CAST, true_qualities(POOL))
    assert found.right == [("whole", "jpeg-5"), ("whole", "jpeg-1")]
    assert found.wrong == [("jpeg-1", "jpeg-5"), ("jpeg-3", "jpeg-1")]
    assert (found.accuracy, found.pairs) == ((2 + 0.5) / 5, 5)


def test_votes_on_true_ties_alone_cannot_be_audited() -> None:
    with pytest.raises(ValueError, match="prefers one image"):
        audit(CAST[-1:], true_qualities(POOL))


def test_a_round_is_audited_by_its_files_and_held_against_the_round_before(tmp_path: Path) -> None:
    for number, cast in ((1, CAST[:3]), (2, [votes("jpeg-1", "jpeg-5", 7, 1), *CAST[3:]])):
        write_jsonl(tmp_path / f"round-{number}" / "votes.jsonl", map(asdict, cast))
        write_jsonl(tmp_path / f"round-{number}" / "pool.jsonl", map(asdict, POOL.images))
    assert audit_round(tmp_path / "round-1", None)["changes"] is None
    found = audit_round(tmp_path / "round-2", tmp_path / "round-1")
    assert (found["accuracy_on_audit"], found["pairs_audited"]) == ((1 + 0 + 0.5) / 3, 3)
    assert (found["changes"]["pairs"], found["changes"]["better"], found["changes"]["worse"]) == (1, 1, 0)
    assert found["accuracy"]["label"]["share"] == found["accuracy_on_audit"]
