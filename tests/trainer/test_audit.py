"""The audit of a round's votes, where the truth is known."""

from __future__ import annotations

from trainer.demo.truth import quality
from trainer.evaluation.audit import audit
from trainer.pool.image import PoolImage
from trainer.pool.pool import Pool
from trainer.voting.vote import PairVotes

POOL = Pool([PoolImage("whole", "", "whole"), *(PoolImage(f"jpeg-{n}", "", "whole", "jpeg", n) for n in (1, 3, 5))])


def votes(first: str, second: str, for_first: int, for_second: int) -> PairVotes:
    return PairVotes(first, second, [for_first, 0], [0, for_second], 0, "v1")


def test_the_surest_right_and_wrong_pairs_come_first_and_ties_count_half() -> None:
    assert quality([("jpeg", 1)]) > quality([("jpeg", 3)]) > quality([("jpeg", 5)])
    cast = [
        votes("whole", "jpeg-1", 5, 3), votes("whole", "jpeg-5", 8, 0), votes("jpeg-1", "jpeg-5", 1, 7),
        votes("jpeg-3", "jpeg-1", 5, 3), votes("jpeg-3", "jpeg-5", 4, 4), votes("jpeg-1", "jpeg-1", 8, 0),
    ]  # fmt: skip
    found = audit(cast, POOL, pairs=6)
    assert found.right == [("whole", "jpeg-5"), ("whole", "jpeg-1")]
    assert found.wrong == [("jpeg-1", "jpeg-5"), ("jpeg-3", "jpeg-1")]
    assert found.accuracy == (2 + 0.5) / 5
