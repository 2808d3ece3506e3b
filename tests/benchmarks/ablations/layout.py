"""The tables: which rounds of which arms stand in them, and beside them the paper's figures (arXiv 2509.25787)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from tests.benchmarks.ablations.arms import VOTES

UNKNOWN = "no figure known"
BASE, ROUND_1, ROUND_2 = "paper:qwen2.5-vl-7b", "paper:evoquality-round1", "paper:evoquality-round2"
"""Models of the leaderboard: of them the weighted PLCC is shown."""


@dataclass(frozen=True, slots=True)
class Line:
    """A round of an arm; round 0 is the checkpoint it starts from."""

    label: str
    arm: str
    round: int
    paper: float | str = UNKNOWN
    """The paper's figure, or its model on the leaderboard, or what it says without a figure."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """One table."""

    title: str
    figures: tuple[str, ...]
    """Names in `figures.FIGURES`; the paper's are of the first."""
    lines: tuple[Line, ...]
    compared: tuple[tuple[str, str], ...]
    """Labels of lines whose first figures are compared, seed by seed: the first minus the second."""


def _votes_line(votes: int) -> Line:
    said = {1: "about the baseline", 8: "most of the gain", 32: "the most stable"}
    return Line(f"K = {votes}", f"votes-{votes}", 1, said.get(votes, UNKNOWN))


ABLATIONS = {
    "votes": Ablation(
        "Votes a pair (the paper's Figure 3)",
        ("plcc", "gain", "votes_right", "ties"),
        (Line("before", "default", 0, BASE), *map(_votes_line, VOTES), Line("exact: the limit", "hard", 1)),
        (("K = 1", "before"), ("K = 8", "K = 1"), ("K = 32", "K = 8"), ("K = 32", "K = 1")),
    ),
    "reward": Ablation(
        "Ranking against regressing to the mean score",
        ("plcc", "gain", "srcc"),
        (
            Line("ranking, round 1", "default", 1, ROUND_1),
            Line("ranking, round 2", "default", 2, ROUND_2),
            Line("ranking, round 3", "default", 3),
            Line("regressing, round 1", "regression", 1),
            Line("regressing, round 2", "regression", 2, 0.736),
            Line("regressing, round 3", "regression", 3),
        ),
        tuple((f"ranking, round {n}", f"regressing, round {n}") for n in (1, 2, 3)),
    ),
    "order": Ablation(
        "With and without order permutation",
        ("plcc", "gain", "votes_right", "first_shown"),
        (Line("both orders", "default", 1, ROUND_1), Line("one order", "one-order", 1)),
        (("both orders", "one order"),),
    ),
    "labels": Ablation(
        "Hard against probabilistic labels",
        ("plcc", "gain", "ties"),
        (
            Line("hard, round 1", "hard", 1, ROUND_1),
            Line("hard, round 2", "hard", 2, ROUND_2),
            Line("hard with ties, round 1", "default", 1),
            Line("hard with ties, round 2", "default", 2),
            Line("probabilistic, round 1", "soft", 1),
            Line("probabilistic, round 2", "soft", 2),
        ),
        tuple(
            (f"{one}, round {n}", f"{other}, round {n}")
            for n in (1, 2)
            for one, other in combinations(("hard with ties", "hard", "probabilistic"), 2)
        ),
    ),
    "pairs": Ablation(
        "Random against informative pairs",
        ("plcc", "gain", "votes_right", "ties"),
        (Line("random", "default", 1, ROUND_1), Line("informative", "informative", 1)),
        (("random", "informative"),),
    ),
    "rounds": Ablation(
        "Rounds",
        ("plcc", "gain", "srcc", "votes_right"),
        (
            Line("before", "default", 0, BASE),
            Line("round 1", "default", 1, ROUND_1),
            Line("round 2", "default", 2, ROUND_2),
            Line("round 3", "default", 3),
            Line("round 4", "default", 4),
        ),
        tuple((f"round {n}", f"round {n - 1}" if n > 1 else "before") for n in (1, 2, 3, 4)),
    ),
    "stacking": Ablation(
        "Stacking on a supervised checkpoint",
        ("out_of_domain", "in_domain", "votes_right"),
        (
            Line("supervised", "stacked", 0, 0.722),
            Line("round 1", "stacked", 1),
            Line("round 2", "stacked", 2, 0.768),
        ),
        (("round 1", "supervised"), ("round 2", "supervised"), ("round 2", "round 1")),
    ),
}
