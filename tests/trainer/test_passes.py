"""Splitting a step into passes, and fitting them into the memory."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from trainer.training.passes import Pass, split, tokens_of


def sizes(passes: list[Pass], prompts: list[int], answers: list[list[int]]) -> list[int]:
    return [
        tokens_of(
            [prompts[row] for row in each.pictures],
            [
                [answers[row][place] for place in places]
                for row, places in zip(each.pictures, each.answers, strict=True)
            ],
        )
        for each in passes
    ]


@pytest.mark.parametrize("budget", [1, 300, 1000, 5000, 10**9])
@pytest.mark.parametrize("seed", [0, 1])
def test_passes_hold_every_answer_once_and_keep_to_the_budget(budget: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    prompts = random.integers(50, 150, 5).tolist()
    answers = random.lognormal(4, 1, (5, 8)).astype(int).clip(1).tolist()
    passes = split(prompts, answers, budget)
    held = [
        (row, place)
        for each in passes
        for row, places in zip(each.pictures, each.answers, strict=True)
        for place in places
    ]
    assert sorted(held) == [(row, place) for row in range(5) for place in range(8)]
    assert all(len({len(places) for places in each.answers}) == 1 for each in passes)
    single = [each.pictures == each.pictures[:1] and len(each.answers[0]) == 1 for each in passes]
    assert all(size <= budget or one for size, one in zip(sizes(passes, prompts, answers), single, strict=True))


def test_what_fits_is_not_cut() -> None:
    assert split([10, 20], [[3, 4], [5, 6]], 10**6) == [Pass([1, 0], [[0, 1], [0, 1]])]


def test_answers_that_are_cut_are_grouped_by_their_lengths() -> None:
    lengths = [900, 10, 20, 950, 15, 12]
    [long, short] = split([100], [lengths], 2000)
    assert [sorted(lengths[place] for place in each.answers[0]) for each in (long, short)] == [
        [900, 950],
        [10, 12, 15, 20],
    ]


def test_pictures_with_long_answers_share_a_pass() -> None:
    passes = split([10] * 4, [[5] * 2, [90] * 2, [6] * 2, [95] * 2], 400)
    assert [sorted(each.pictures) for each in passes] == [[1, 3], [0, 2]]


def test_only_the_rows_asked_for_are_split() -> None:
    passes = split([10] * 4, [[5]] * 4, 30, rows=[1, 3])
    assert sorted(chain.from_iterable(each.pictures for each in passes)) == [1, 3]
