"""The audit of a round's votes, where the truth is known."""

from __future__ import annotations

from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from tests.trainer.votes import exact, one_order
from trainer.demo.audit import audit, audit_round, true_qualities
from trainer.demo.truth import quality
from trainer.evaluation.pseudo_labels import accuracy
from trainer.evaluation.pseudo_labels.accuracy import changes, design_effect, equal_widths, judged, quantiles, rate
from trainer.evaluation.pseudo_labels.figures import beside_truth, without_truth
from trainer.files import write_jsonl
from trainer.pool.pool import Pool, PoolImage
from trainer.voting.votes import PairVotes

POOL = Pool([PoolImage("whole", "", "whole"), *(PoolImage(f"jpeg-{n}", "", "whole", "jpeg", n) for n in (1, 3, 5))])
TRUTH = {"a": 5.0, "b": 4.0, "c": 4.0, "d": 1.0}


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


def test_ties_of_the_truth_and_unknown_images_are_left_out_and_a_tied_label_counts_half() -> None:
    votes = [
        exact("ab", 0.9), exact("ad", 0.4), exact("bd", 0.55, tie_margin=0.3), exact("bc", 0.9), exact("ax", 0.9),
        PairVotes("c", "d", [0, 0], [0, 0], 2, "v1"),
    ]  # fmt: skip
    found = judged(votes, TRUTH)
    assert found.label.tolist() == [1, 0, 0.5]
    assert found.majority.tolist() == [1, 0, 1]
    assert found.difference.tolist() == [1, 4, 3]
    assert found.margin == pytest.approx([0.8, 0.2, 0.1])
    row = accuracy.overall(found)
    assert row.label
    assert row.majority
    assert (row.label.share, row.majority.share, row.label.pairs) == (0.5, pytest.approx(2 / 3), 3)


def test_the_direction_of_the_truth_is_that_higher_is_better() -> None:
    assert judged([exact("da", 0.1)], TRUTH).label.tolist() == [1]


def test_parts_by_quantile_keep_equal_values_together() -> None:
    values = np.array([1, 1, 1, 1, 1, 1, 0.2, 0.4])
    assert [part.sum() for part in quantiles(values, 4)] == [2, 6]
    assert [part.sum() for part in quantiles(np.arange(8.0), 4)] == [2, 2, 2, 2]
    assert [part.sum() for part in quantiles(np.array([0.0] * 4 + [1.0] * 6), 8)] == [4, 6]
    assert [part.sum() for part in quantiles(np.ones(5), 8)] == [5]


def test_parts_of_equal_width_hold_every_value_once() -> None:
    values = np.array([0.0, 0.1, 1.0, 2.0])
    parts = equal_widths(values, 4, 0, 2)
    assert [values[part].tolist() for part in parts] == [[0, 0.1], [1], [2]]


def test_the_calibration_error_is_the_mean_distance_of_share_and_accuracy() -> None:
    votes = [exact("ab", 0.95)] * 3 + [exact("ba", 0.95)] + [exact("ad", 0.6)] * 2
    found = accuracy.calibration(judged(votes, TRUTH))
    assert [row.mean for row in found.rows] == pytest.approx([0.6, 0.95])
    assert found.error == pytest.approx((4 * (0.95 - 0.75) + 2 * (1 - 0.6)) / 6)


def test_pairs_of_different_images_have_wilsons_interval() -> None:
    values, dyads = np.array([1.0] * 7 + [0.0] * 3), np.arange(20).reshape(10, 2)
    found = rate(values, dyads)
    assert found
    assert (found.low, found.high) == pytest.approx(proportion_confint(7, 10, method="wilson"))
    alike = rate(np.ones(10), dyads)
    assert alike
    assert (alike.low, alike.high) == pytest.approx(proportion_confint(10, 10, method="wilson"))


def test_the_variance_is_the_sum_over_all_pairs_of_pairs_that_share_an_image() -> None:
    rng = np.random.default_rng(0)
    dyads = np.array(list(combinations(range(9), 2)))
    luck = rng.normal(size=9)
    values = (luck[dyads].sum(1) + rng.normal(size=len(dyads)) > 0).astype(float)
    residuals = values - values.mean()
    shared = [
        residuals[one] * residuals[two]
        for one in range(len(dyads)) for two in range(len(dyads)) if set(dyads[one]) & set(dyads[two])
    ]  # fmt: skip
    of_coins = len(values) * values.mean() * (1 - values.mean())
    assert sum(shared) > of_coins
    assert design_effect(values, dyads) == pytest.approx(sum(shared) / of_coins)


def test_intervals_hold_the_true_share_about_as_often_as_they_say_though_pairs_share_images() -> None:
    rng, dyads = np.random.default_rng(1), np.array(list(combinations(range(40), 2)))
    held = plain = 0
    for _ in range(200):
        luck = rng.normal(size=40)
        values = (luck[dyads].sum(1) + rng.normal(size=len(dyads)) > 0).astype(float)
        found = rate(values, dyads)
        assert found
        held += found.low < 0.5 < found.high
        low, high = proportion_confint(values.sum(), len(values), method="wilson")
        plain += low < 0.5 < high
    assert held / 200 > 0.88
    assert plain / 200 < 0.5


def test_labels_that_changed_are_better_or_worse_and_a_tie_lies_between() -> None:
    before = [exact("ab", 0.9), exact("ad", 0.5), exact("cd", 0.1), exact("bc", 0.9), exact("bd", 0.9)]
    after = [exact("ab", 0.5), exact("ad", 0.9), exact("cd", 0.9), exact("bc", 0.1), exact("ac", 0.9)]
    found = changes(before, after, TRUTH)
    assert found
    assert (found.pairs, found.changed, found.judged, found.better, found.worse) == (4, 4, 3, 2, 1)
    assert (found.accuracy_before, found.accuracy_after) == (0.5, pytest.approx(2.5 / 3))
    assert changes(before, [exact("ac", 0.9)], TRUTH) is None


def test_pairs_asked_in_one_order_have_every_figure_but_a_position_bias() -> None:
    votes = [one_order("ab", 0.9), one_order("bd", 0.9), one_order("ad", 0.9)]
    found = without_truth(votes, [["a", "b", "d"]]) | beside_truth(votes, TRUTH)
    assert found["position"] is None
    assert found["position_by_difference"] == []
    assert found["cycles"]["labels"]["triples"] == 1
    assert found["accuracy"]["label"]["share"] == 1


def test_votes_that_nobody_could_read_have_no_figures() -> None:
    votes = [PairVotes("a", "b", [0, 0], [0, 0], 2, "v1")]
    found = without_truth(votes, [["a", "b"]]) | beside_truth(votes, TRUTH)
    assert found["accuracy"]["label"] is None
    assert found["accuracy"]["calibration"] == {"rows": [], "error": None}
    assert found["cycles"]["labels"]["share"] is None
