"""Splitting a step's pictures and answers into passes of at most so many tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Lengths = Sequence[int]
MOST_TOKENS = 32_768
"""Of a pass, if nothing else limits it: more would make it no faster."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward and backward pass: some pictures, each with equally many of its answers."""

    pictures: list[int]
    answers: list[list[int]]
    """Of each picture, by their places."""


def tokens_of(prompts: Lengths, answers: Sequence[Lengths]) -> int:
    """Places that a pass holds in its attention: every prompt as long as the longest, so every answer."""
    return len(prompts) * (max(prompts) + len(answers[0]) * max(map(max, answers)))


def split(prompts: Lengths, answers: Sequence[Lengths], budget: int, rows: Sequence[int] | None = None) -> list[Pass]:
    """Passes that hold all answers once. Pictures with long answers share a pass, so do those with short ones. The
    answers of a picture that does not fit are cut, the long ones first; each part computes the prompt again.

    Args:
        prompts: (N,) tokens of each picture's prompt.
        answers: (N, K) tokens of each answer.
        budget: the most tokens a pass, as `tokens_of` counts them. A pass of a single answer may have more.
        rows: the pictures to take; all without.
    """
    passes, whole = list[Pass](), list[int]()
    for row in sorted(range(len(prompts)) if rows is None else rows, key=lambda row: -max(answers[row])):
        shared = [*whole, row]
        if tokens_of([prompts[each] for each in shared], [answers[each] for each in shared]) <= budget:
            whole = shared
        elif tokens_of([prompts[row]], [answers[row]]) <= budget:
            passes, whole = [*passes, *_together(whole, answers)], [row]
        else:
            passes += [Pass([row], [part]) for part in _cut(answers[row], budget - prompts[row])]
    return [*passes, *_together(whole, answers)]


def _together(pictures: list[int], answers: Sequence[Lengths]) -> list[Pass]:
    return [Pass(pictures, [list(range(len(answers[row]))) for row in pictures])] if pictures else []


def _cut(answers: Lengths, budget: int) -> list[list[int]]:
    """Runs of answers of like lengths, each run within the budget if it counts as its longest."""
    order = sorted(range(len(answers)), key=lambda place: -answers[place])
    runs = list[list[int]]()
    while order:
        count = max(1, budget // answers[order[0]])
        runs, order = [*runs, order[:count]], order[count:]
    return runs
