"""The pairs that are asked, the labels made of their votes, and the end of asking."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from fractions import Fraction
from itertools import combinations
from math import comb, factorial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.stats import betabinom

from trainer.files import write_json, write_jsonl
from trainer.pool.pool import Pool, PoolImage
from trainer.reporting.report import write_report
from trainer.voting import majority
from trainer.voting.groups import (
    Group,
    chain_images,
    chained_groups,
    pairs_of,
    random_groups,
    same_reference_groups,
    shuffled,
    strengths,
)
from trainer.voting.majority import (
    Calibration,
    calibration,
    change,
    decided,
    expected_agreement,
    first_look,
    label_change,
)
from trainer.voting.votes import PairVotes, agreement, labels_of

POOL = Pool([PoolImage(f"{source}-{n}", "", source) for source in "abcdef" for n in range(5)])
EIGHT = Pool([PoolImage(f"{source}-{n}", "", source) for source in "abcdefgh" for n in range(5)])
IDS = [f"{number:03d}" for number in range(100)]
HUNDRED = Pool([PoolImage(name, "", name) for name in IDS])
STRENGTH = {name: float(score) for name, score in zip(IDS, np.random.default_rng(0).normal(3, 1, 100), strict=True)}
K = 32


def votes(first: int, second: int, unreadable: int = 0) -> PairVotes:
    return PairVotes("x", "y", [first, 0], [0, second], unreadable, "v1")


def split(first: int) -> tuple[int, int]:
    """A full vote with so many votes for `first`."""
    return int(first), 32 - int(first)


def exact(forward: float, backward: float, first: str = "x") -> PairVotes:
    """Probabilities of a vote for `first` in both orders, all readable."""
    return PairVotes(first, "y", [forward, 1 - forward], [backward, 1 - backward], 0.0, "v1", by="exact")


def test_groups_hold_different_images_and_use_every_image_about_equally() -> None:
    groups = random_groups(POOL, count=15, size=6, seed=0)
    assert all(len(set(group)) == 6 for group in groups)
    uses = [sum(image.id in group for group in groups) for image in POOL.images]
    assert max(uses) - min(uses) <= 1


def test_the_seed_decides_the_groups() -> None:
    assert random_groups(POOL, 4, 6, seed=1) == random_groups(POOL, 4, 6, seed=1) != random_groups(POOL, 4, 6, seed=2)


def test_a_pool_smaller_than_a_group_is_an_error_that_says_so() -> None:
    with pytest.raises(ValueError, match="30 images, fewer than a group of 40"):
        random_groups(POOL, 1, 40, seed=0)


def test_groups_of_the_same_reference_compare_distortions_of_a_few_and_take_turns() -> None:
    groups = same_reference_groups(EIGHT, count=6, size=8, seed=0)
    references = [Counter(image.split("-")[0] for image in group) for group in groups]
    assert all(sorted(reference.values()) == [2, 2, 2, 2] for reference in references)
    assert all(len(set(group)) == 8 for group in groups)
    assert sum(references, Counter()) == Counter(dict.fromkeys("abcdefgh", 6))


def test_references_with_few_variants_make_a_smaller_group_and_those_without_make_none() -> None:
    lonely = Pool([*EIGHT.images, PoolImage("i-0", "", "i")])
    groups = same_reference_groups(lonely, count=6, size=24, seed=0)
    assert len(groups) == 6
    assert {len(group) for group in groups} == {20}
    with pytest.raises(ValueError, match="give --variants above 0"):
        same_reference_groups(Pool([PoolImage("g-0", "", "g")]), 1, 12, seed=0)


def test_every_pair_inside_a_group_is_asked_once() -> None:
    pairs = pairs_of([["a", "b", "c"], ["c", "b", "d"]])
    assert sorted(pairs) == [("a", "b"), ("a", "c"), ("b", "c"), ("b", "d"), ("c", "d")]
    groups = random_groups(POOL, 3, 6, seed=0)
    assert set(pairs_of(groups)) == {tuple(sorted(p)) for group in groups for p in combinations(group, 2)}


def test_shuffling_keeps_the_groups() -> None:
    groups = random_groups(POOL, 5, 6, seed=0)
    assert sorted(shuffled(groups, 3)) == sorted(groups)


@pytest.mark.parametrize(("first", "second", "label"), [(5, 3, 1.0), (3, 5, 0.0), (4, 4, 0.5), (0, 0, None)])
def test_the_majority_is_the_label(first: int, second: int, label: float | None) -> None:
    assert votes(first, second).label == label


@pytest.mark.parametrize(("share", "label"), [(0.64, 0.5), (0.36, 0.5), (0.66, 1.0), (0.34, 0.0)])
def test_exact_votes_closer_than_the_margin_tie(share: float, label: float) -> None:
    assert replace(exact(share, share), tie_margin=0.3).label == label


def test_a_pair_without_a_readable_answer_has_no_label() -> None:
    assert labels_of([votes(0, 0, unreadable=8)]) == {}


def test_labels_of_the_two_directions_add_up_to_one() -> None:
    assert labels_of([votes(5, 3)]) == {("x", "y"): 1.0, ("y", "x"): 0.0}


@pytest.mark.parametrize(("forward", "backward", "label"), [(0.9, 0.2, 1.0), (0.8, 0.1, 0.0), (0.75, 0.25, 0.5)])
def test_exact_votes_are_labelled_by_the_mean_of_both_orders(forward: float, backward: float, label: float) -> None:
    assert exact(forward, backward).label == label


def test_questions_asked_are_samples_or_readings_of_probabilities() -> None:
    assert votes(5, 3, unreadable=8).asked == 16
    assert exact(0.9, 0.2).asked == 2


def test_agreement_counts_a_tie_against_a_decided_label_half_and_leaves_out_pairs_without_a_label() -> None:
    mine = [exact(0.9, 0.9, "a"), exact(0.9, 0.9, "b"), exact(0.1, 0.1, "c"), exact(0.9, 0.9, "d")]
    theirs = [exact(0.9, 0.9, "a"), exact(0.5, 0.5, "b"), exact(0.9, 0.9, "c")]
    assert agreement(mine, [*theirs, PairVotes("d", "y", [0, 0], [0, 0], 8, "v1")]) == 0.5


def test_a_report_counts_and_plots_votes_of_both_kinds(tmp_path: Path) -> None:
    write_json(tmp_path / "settings.json", {})
    write_jsonl(tmp_path / "round-1" / "votes.jsonl", [asdict(exact(0.9, 0.2)), asdict(votes(5, 3, unreadable=2))])
    found = write_report(tmp_path)["rounds"][1]["vote"]
    assert (found["pairs"], found["votes"], found["exact"], found["unreadable"]) == (2, 12, 1, 2)
    assert found["share_for_the_image_shown_first"] == pytest.approx((0.9 + 0.8 + 5 + 3) / 10)
    assert found["mean_margin"] == pytest.approx((0.1 + 0.25) / 2)
    assert 0.5 < found["agreement_with_full_vote"] < 1
    assert "How decided the pairs are" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(("forward", "backward"), [(0.95, 0.9), (0.55, 0.5), (0.9, 0.15)])
def test_the_agreement_of_exact_votes_with_a_full_vote_is_what_drawing_it_gives(
    forward: float, backward: float
) -> None:
    rng = np.random.default_rng(0)
    drawn = [votes(*split(rng.binomial(16, [forward, backward]).sum())) for _ in range(4000)]
    asked = exact(forward, backward)
    found = np.mean([1 - abs(one.label - asked.label) for one in drawn])
    assert expected_agreement([asked]) == pytest.approx(found, abs=0.02)


def test_a_full_vote_agrees_with_itself_and_labels_that_do_not_exist_are_left_out() -> None:
    assert expected_agreement([votes(20, 12), votes(0, 0, unreadable=32)]) == 1
    assert expected_agreement([votes(0, 0, unreadable=32)]) is None
    assert 0.9 < expected_agreement([votes(4, 0)]) < 1


@pytest.mark.parametrize(("first", "second"), [(1, 0), (3, 2), (4, 4), (0, 6)])
def test_the_agreement_of_sampled_votes_with_a_full_vote_is_what_drawing_the_rest_gives(
    first: int, second: int
) -> None:
    rng, asked, left = np.random.default_rng(0), votes(first, second), 32 - first - second
    more = rng.binomial(left, rng.beta(first + 1, second + 1, 20_000))
    found = np.mean([1 - abs(votes(first + one, second + left - one).label - asked.label) for one in more.tolist()])
    assert expected_agreement([asked]) == pytest.approx(found, abs=0.02)


def components(groups: list[Group]) -> int:
    """Parts of the comparison graph that no comparison connects."""
    images = sorted({image for group in groups for image in group})
    edges = [(images.index(a), images.index(b)) for group in groups for a, b in combinations(group, 2)]
    rows, columns = zip(*edges, strict=True)
    graph = coo_matrix((np.ones(len(edges)), (rows, columns)), shape=(len(images), len(images)))
    return int(connected_components(graph, directed=False)[0])


def distance(groups: list[Group]) -> float:
    """Between the strengths of two images that are compared, on average."""
    return float(np.mean([abs(STRENGTH[a] - STRENGTH[b]) for group in groups for a, b in combinations(group, 2)]))


@pytest.mark.parametrize("count", [1, 3, 9, 10, 25])
def test_groups_hold_different_images_and_form_one_graph(count: int) -> None:
    groups = chained_groups(
        {name: STRENGTH[name] for name in chain_images(HUNDRED, count, 12, seed=0)}, count, 12, seed=0
    )
    assert [len(set(group)) for group in groups] == [12] * count
    assert components(groups) == 1


def test_images_compared_are_closer_in_strength_than_at_random() -> None:
    assert distance(chained_groups(STRENGTH, 20, 12, seed=0)) < 0.6 * distance(random_groups(HUNDRED, 20, 12, seed=0))


def test_the_seed_decides_the_chained_groups() -> None:
    first, again, other = (chained_groups(STRENGTH, 5, 12, seed) for seed in (1, 1, 2))
    assert first == again != other


def test_no_more_images_are_drawn_than_a_chain_holds() -> None:
    assert len(set(chain_images(HUNDRED, 3, 12, seed=0))) == 34
    assert len(chain_images(HUNDRED, 50, 12, seed=0)) == 100


def test_an_image_without_a_readable_score_is_taken_for_an_average_one() -> None:
    scores = np.array([[1.0, np.nan], [np.nan, np.nan], [4.0, 4.0]])
    assert strengths(["a", "b", "c"], scores) == {"a": 1.0, "b": 3.0, "c": 4.0}
    assert strengths(["a"], np.array([[np.nan]])) == {"a": 0.0}


def beta_integral(a: int, b: int) -> Fraction:
    """B(a, b) of whole numbers."""
    return Fraction(factorial(a - 1) * factorial(b - 1), factorial(a + b - 1))


def undone(first: int, second: int, left: int) -> Fraction:
    """Transcribed: the sum of the beta-binomial's terms with which `first` does not keep its majority."""
    a, b = first + 1, second + 1
    terms = (
        comb(left, won) * beta_integral(a + won, b + left - won) / beta_integral(a, b)
        for won in range(left + 1)
        if first + won <= second + left - won
    )
    return sum(terms, Fraction(0))


@pytest.mark.parametrize(
    ("more", "fewer", "left"), [(2, 0, 30), (5, 1, 26), (9, 7, 16), (16, 0, 16), (17, 0, 15), (17, 14, 1), (3, 2, 2)]
)
def test_the_probability_of_a_change_is_the_beta_binomials_tail(more: int, fewer: int, left: int) -> None:
    assert change(fewer, more, left) == pytest.approx(float(undone(more, fewer, left)), abs=1e-12)


def test_without_an_allowed_error_a_pair_ends_exactly_when_no_vote_could_change_its_majority() -> None:
    for first in range(K + 1):
        for second in range(K + 1 - first):
            left = K - first - second
            certain = left == 0 or abs(first - second) > left
            assert decided(first, second, left, error=0) == certain


@pytest.mark.parametrize("error", [0.02, 0.05, 0.1])
def test_labels_differ_from_those_of_all_votes_no_more_often_than_stated(error: float) -> None:
    rng = np.random.default_rng(0)
    votes = rng.random((4000, K)) < rng.random((4000, 1))
    stopped, asked = [], 0
    for row in votes:
        n = next(n for n in range(2, K + 1, 2) if decided(row[:n].sum(), n - row[:n].sum(), K - n, error))
        stopped.append(np.sign(2 * row[:n].sum() - n))
        asked += n
    differ = np.mean(np.array(stopped) != np.sign(2 * votes.sum(1) - K))
    assert 0 < differ < error
    assert asked < 0.5 * votes.size


def test_the_first_look_is_where_votes_all_alike_decide() -> None:
    assert [first_look(K, error) for error in (0, 0.05, 0.2)] == [18, 4, 2]
    assert [first_look(votes, 0) for votes in (1, 2, 3, 8)] == [1, 2, 2, 6]
    assert not decided(2, 0, K - 2, 0.05)
    assert decided(4, 0, K - 4, 0.05)


def test_a_model_that_always_prefers_one_position_is_asked_to_the_end() -> None:
    assert not any(decided(n // 2, n // 2, K - n, error=0.2) for n in range(2, K, 2))


# Thoughts


def thoughts(first: float, second: float, tie_margin: float = 0.0) -> PairVotes:
    each = [float(first) / 2, float(second) / 2]
    return PairVotes("a", "b", each, each, 0.0, "v1", by="thoughts", tie_margin=tie_margin)


@pytest.mark.parametrize(("more", "fewer", "left"), [(3, 0, 28), (5, 1, 25), (9, 7, 15), (17, 14, 2)])
def test_a_thought_worth_one_vote_changes_a_label_as_a_vote_does(more: int, fewer: int, left: int) -> None:
    assert label_change(thoughts(more, fewer), left, Calibration()) == pytest.approx(change(fewer, more, left))
    assert label_change(thoughts(fewer, more), left, Calibration()) == pytest.approx(change(fewer, more, left))


@pytest.mark.parametrize(("first", "second"), [(1.9, 0.1), (2.7, 1.3), (0.8, 1.2)])
def test_the_change_of_a_label_is_what_draws_from_the_posterior_give(first: float, second: float) -> None:
    known, left, dice = Calibration(worth=4.0, prior=0.5), 10, np.random.default_rng(0)
    votes = thoughts(first, second, tie_margin=0.3)
    preference = dice.beta(4 * first + 0.5, 4 * second + 0.5, 200_000)
    further = dice.binomial(4 * left, preference) / 4
    shares = (first + further) / (first + second + left)
    labels = 0.5 + 0.5 * np.sign(shares - 0.5) * (abs(2 * shares - 1) >= 0.3)
    assert label_change(votes, left, known) == pytest.approx(np.abs(labels - votes.label).mean(), abs=0.01)


def test_a_label_is_certain_when_nothing_is_left_and_open_while_nothing_is_readable() -> None:
    assert label_change(thoughts(1.0, 0.9), 0, Calibration()) == 0
    assert label_change(thoughts(0.0, 0.0), 8, Calibration()) == 1


def simulated(clearness: float, firmness: float, pairs: int) -> NDArray[np.float64]:
    """(pairs, 32) shares behind thoughts: preferences from Beta(clearness, clearness), and of each pair, the shares
    from a beta distribution whose variance is 1 / (1 + firmness) of a vote's."""
    dice = np.random.default_rng(1)
    means = np.clip(dice.beta(clearness, clearness, (pairs, 1)), 1e-3, 1 - 1e-3)
    return dice.beta(means * firmness, (1 - means) * firmness, (pairs, 32))


@pytest.mark.parametrize("firmness", [0.5, 4.0])
@pytest.mark.parametrize("clearness", [0.2, 0.7])
def test_a_look_at_many_pairs_finds_what_their_thoughts_are_worth(clearness: float, firmness: float) -> None:
    known = calibration(simulated(clearness, firmness, 4000)[:, :4].tolist(), orders=1)
    assert known.worth == pytest.approx(1 + firmness, rel=0.1)
    assert known.prior == pytest.approx(clearness, rel=0.15)


def test_thoughts_that_all_agree_are_not_trusted_beyond_the_pairs_that_were_seen() -> None:
    few, many = (calibration([[0.99] * 4] * count, orders=2) for count in (1, 100))
    assert 1 < few.worth < many.worth < 10
    assert few.prior > many.prior > 0


@pytest.mark.parametrize(("firmness", "most"), [(0.2, 0.45), (1.0, 0.3), (8.0, 0.2)])
def test_labels_of_stopped_thoughts_differ_from_those_of_all_no_more_than_stated(firmness: float, most: float) -> None:
    shares, error = simulated(0.3, firmness, 400).reshape(-1, 16, 2).mean(2), 0.06
    known, changes, asked = calibration(shares[:32, :4].tolist(), orders=2), [], 0
    for row in shares:
        votes = [thoughts(2 * row[:n].sum(), 2 * (1 - row[:n]).sum(), tie_margin=0.3) for n in range(1, 17)]
        n = next(n for n in range(1, 17) if label_change(votes[n - 1], 32 - 2 * n, known) <= error)
        changes.append(abs(votes[n - 1].label - votes[-1].label))
        asked += 2 * n
    assert np.mean(changes) <= error
    assert asked < most * 32 * len(shares)


@pytest.mark.parametrize(("n", "a", "b"), [(1, 0.2, 0.2), (30, 1.0, 1.0), (64, 40.5, 0.3), (300, 3.0, 90.0)])
def test_the_quick_beta_binomial_is_that_of_scipy(n: int, a: float, b: float) -> None:
    counts = np.arange(n + 1)
    assert majority._beta_binomial(counts, a, b) == pytest.approx(betabinom.pmf(counts, n, a, b), rel=1e-9, abs=1e-12)
