"""The expectation read off the tree of answers, against sums over every answer there is."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from service.engine.protocol import END, Step
from service.judging.score_tree import DIGITS, LONGEST, POINT, SCORES, TOKENS, UNITS, ScoreTree

Model = dict[str, dict[str, float]]


def model(seed: int, sharpness: float = 2.0, coupled: bool = True) -> Model:
    """A random language of scores: probabilities of the next token after every beginning."""
    random = np.random.default_rng(seed)

    def softmax(logits: np.ndarray) -> dict[str, float]:
        p = np.exp(logits - logits.max())
        return dict(zip(TOKENS, (p / p.sum()).tolist(), strict=True))

    def logits(likely: str) -> np.ndarray:
        return random.normal(0, sharpness, len(TOKENS)) + 6 * np.array([token in likely for token in TOKENS])

    hundredths = {unit: softmax(logits("0123456789")) for unit in UNITS}
    ends = softmax(np.array([10.0 if token == END else 0.0 for token in TOKENS]))
    known = {"": softmax(logits("12345"))}
    for unit in UNITS:
        known[unit] = softmax(np.array([9.0 if token == POINT else 5.0 if token == END else 0.0 for token in TOKENS]))
        known[unit + POINT] = softmax(logits("0123456789"))
        for tenth in DIGITS:
            known[unit + POINT + tenth] = softmax(logits("0123456789")) if coupled else hundredths[unit]
            known.update({unit + POINT + tenth + digit: ends for digit in DIGITS})
    return known


def follow(known: Model, beginning: str, steps: int) -> list[Step]:
    path = []
    for _ in range(steps):
        after = known[beginning]
        taken = max(after, key=lambda token: after[token])
        path.append(Step(taken, after))
        beginning += taken
        if taken == END or beginning not in known:
            break
    return path


def grown(known: Model) -> tuple[ScoreTree, list[list[str]]]:
    tree, rounds = ScoreTree(), []
    while beginnings := tree.unknown():
        rounds.append(beginnings)
        for beginning in beginnings:
            tree.grow(beginning, follow(known, beginning, LONGEST - len(beginning)))
    return tree, rounds


def every_answer(known: Model) -> dict[float, float]:
    """Probability by score, over all answers of at most two decimals that end (Eq.: chain rule)."""
    scores: dict[float, float] = {}
    decimals = [(), *((t,) for t in DIGITS), *itertools.product(DIGITS, DIGITS)]
    for unit, tail in itertools.product(UNITS, decimals):
        text = unit + (POINT + "".join(tail) if tail else "")
        p = math.prod(known[text[:n]][text[n]] for n in range(len(text)))
        after = known[text]
        p *= after[END] + (sum(after[digit] for digit in DIGITS) if len(tail) == 2 else 0)
        if float(text) <= 5:
            scores[float(text)] = scores.get(float(text), 0.0) + p
    return scores


def read(tree: ScoreTree) -> dict[float, float]:
    return dict(zip(SCORES.tolist(), tree.scores().tolist(), strict=True))


def mean(scores: dict[float, float]) -> float:
    return sum(score * p for score, p in scores.items()) / sum(scores.values())


@pytest.mark.parametrize("seed", range(20))
def test_the_expectation_is_that_over_every_answer_within_the_stated_bound(seed: int):
    known = model(seed)
    tree, _ = grown(known)
    assert mean(read(tree)) == pytest.approx(mean(every_answer(known)), abs=0.1)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_exact_where_every_unit_matters_and_hundredths_do_not_depend_on_tenths(seed: int, monkeypatch):
    monkeypatch.setattr("service.judging.score_tree.NEGLIGIBLE", 0.0)
    known = model(seed, coupled=False)
    tree, _ = grown(known)
    exact = every_answer(known)
    assert sum(read(tree).values()) == pytest.approx(sum(exact.values()), abs=1e-4)
    for score, p in read(tree).items():
        assert p == pytest.approx(exact.get(score, 0.0), abs=1e-4)


def test_unlikely_units_are_not_looked_into():
    known = model(0)
    known[""] = dict.fromkeys(TOKENS, 0.0) | {"3": 0.7, "4": 0.29, "2": 0.01}
    assert grown(known)[1] == [[""], ["4"]]


def test_a_model_that_leaves_the_decimals_out_is_read_too():
    known = model(1)
    for unit in UNITS:
        known[unit] = dict.fromkeys(TOKENS, 0.0) | {END: 1.0}
    scores = read(grown(known)[0])
    assert mean(scores) == pytest.approx(sum(int(u) * known[""][u] for u in UNITS) / sum(known[""][u] for u in UNITS))


def test_a_path_that_strays_from_scores_is_left_and_the_units_are_asked_one_by_one():
    known = model(2)
    tree = ScoreTree()
    tree.grow("", [Step("the", dict.fromkeys(TOKENS, 0.05)), Step("3", dict.fromkeys(TOKENS, 1.0))])
    assert tree.unknown() == list(UNITS)
    for unit in UNITS:
        tree.grow(unit, follow(known, unit, LONGEST - 1))
    assert 1 - sum(read(tree).values()) > 0.7
