"""What the gate lets through and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainer.promotion.gate import Behaviour, behaviour, judge
from trainer.settings import EvolveSettings

BEFORE = Behaviour(unreadable=0.01, agreement=0.70, mean=3.0, spread=0.5)


@pytest.fixture
def settings(tmp_path: Path) -> EvolveSettings:
    return EvolveSettings(pool=tmp_path, run=tmp_path / "run")


def test_a_candidate_that_agrees_better_with_the_votes_may_serve(settings: EvolveSettings) -> None:
    assert judge(BEFORE, Behaviour(0.0, 0.80, 3.2, 0.6), settings).passed


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (Behaviour(0.20, 0.80, 3.0, 0.5), "unreadable"),
        (Behaviour(0.00, 0.60, 3.0, 0.5), "agree with 60.0%"),
        (Behaviour(0.00, 0.80, 3.0, 0.1), "collapsed"),
    ],
)
def test_a_worse_candidate_is_refused_with_the_reason(settings: EvolveSettings, after: Behaviour, reason: str) -> None:
    verdict = judge(BEFORE, after, settings)
    assert not verdict.passed
    assert reason in verdict.reasons[0]


def test_agreement_counts_decided_pairs_and_halves_tied_scores() -> None:
    means = {"a": 4.0, "b": 3.0, "c": 3.0, "d": 2.0}
    labels = {("a", "b"): 1.0, ("a", "d"): 0.0, ("b", "c"): 1.0, ("c", "d"): 0.5}
    found = behaviour(np.array([[4.0, np.nan], [3, 3]]), means, list(labels), labels)
    assert found.agreement == pytest.approx((1 + 0 + 0.5) / 3)
    assert found.unreadable == 0.25
