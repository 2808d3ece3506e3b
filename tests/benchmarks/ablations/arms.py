"""The arms of the ablations, and the tables that show them beside the paper's figures (arXiv 2509.25787).

An arm is the default with one setting changed; the arms of K votes differ from each other in K. All arms of a seed use
the same images. A round that several tables show is run once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal

from trainer.reporting.averages import weighted_mean

Start = Literal["embedded", "supervised"]
"""Checkpoint that an arm starts from: the demo's, or that of `study.make_supervised`."""

DOMAIN = ("blur", "noise")
"""Benchmarks with the distortions that the supervised checkpoint is trained on."""
OUT_OF_DOMAIN = ("compression", "resampling", "tone_colour", "local_structure")
"""Benchmarks without any of them; `wild` mixes all distortions and counts on neither side."""

VOTES = (1, 2, 4, 8, 16, 32)
"""K of the paper's Figure 3."""
Row = Mapping[str, Any]
UNKNOWN = "no figure known"
BASE, ROUND_1, ROUND_2 = "paper:qwen2.5-vl-7b", "paper:evoquality-round1", "paper:evoquality-round2"
"""Models on the leaderboard whose weighted PLCC is shown."""


@dataclass(frozen=True, slots=True)
class Arm:
    """`rounds` rounds with these `EvolveSettings`; all others are those of `Trial.settings`."""

    name: str
    rounds: int
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    start: Start = "embedded"


def _sampled(votes: int) -> Arm:
    """K sampled votes. Sampling stops once no further vote can change the majority, so the labels equal those of all K.
    The paper does not publish its temperature; 1 keeps the model's own probabilities, with `hard` as the limit."""
    drawn = {"votes_by": "samples", "votes": votes, "vote_error": 0.0, "vote_temperature": 1.0}
    return Arm(f"votes-{votes}", 1, drawn)


_ALL = (
    Arm("default", 4),
    *map(_sampled, VOTES),
    Arm("regression", 3, {"reward": "regression"}),
    Arm("one-order", 1, {"permute": False}),
    Arm("hard", 2, {"tie_margin": 0.0}),
    Arm("soft", 2, {"labels": "soft"}),
    Arm("informative", 1, {"pairs": "informative"}),
    *(Arm(loss, 1, {"loss": loss}) for loss in ("gspo", "cispo", "sapo")),
    Arm("gspo-wide", 1, {"loss": "gspo", "clip_low": 0.2, "clip_high": 0.28}),
    Arm("stacked", 2, start="supervised"),
)

ARMS = {arm.name: arm for arm in _ALL}
"""Name -> arm, in the order of execution."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a round. `of` returns None where a row lacks it, as votes of a starting checkpoint."""

    heading: str
    of: Callable[[Row], float | None]
    digits: int = 3


def _weighted(metric: str, wanted: Callable[[str], bool] = lambda name: True) -> Callable[[Row], float]:
    """Average over the selected benchmarks, weighted by their number of images."""

    def average(row: Row) -> float:
        sets = {name: metrics for name, metrics in row["benchmarks"].items() if wanted(name)}
        return weighted_mean({name: m[metric] for name, m in sets.items()}, {name: m["n"] for name, m in sets.items()})

    return average


def _share(name: str) -> Callable[[Row], float | None]:
    """A share of the round's votes, in percent."""
    return lambda row: None if row.get("vote", {}).get(name) is None else 100 * float(row["vote"][name])


def _ties(row: Row) -> float | None:
    """Share of tied training labels, in percent; None for soft labels."""
    if "vote" not in row or ARMS[row["arm"]].settings.get("labels") == "soft":
        return None
    return 100 * float(row["vote"]["ties"] / row["vote"]["pairs"])


FIGURES = {
    "plcc": Figure("PLCC", _weighted("plcc")),
    "srcc": Figure("SRCC", _weighted("srcc")),
    "in_domain": Figure("PLCC in its domain", _weighted("plcc", lambda name: name in DOMAIN)),
    "out_of_domain": Figure("PLCC out of its domain", _weighted("plcc", lambda name: name in OUT_OF_DOMAIN)),
    "gain": Figure("gain, %", lambda row: row.get("relative_gain_percent"), 1),
    "votes_right": Figure("votes right, %", _share("accuracy_on_audit"), 1),
    "ties": Figure("ties, %", _ties, 1),
    "first_shown": Figure("votes for the image shown first, %", _share("share_for_the_image_shown_first"), 1),
}


@dataclass(frozen=True, slots=True)
class Line:
    """A round of an arm; round 0 is the checkpoint it starts from."""

    label: str
    arm: str
    round: int
    paper: float | str = UNKNOWN
    """The paper's figure, its model on the leaderboard, or its statement without a figure."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """One table."""

    title: str
    figures: tuple[str, ...]
    """Names in `FIGURES`; the paper's figures are of the first."""
    lines: tuple[Line, ...]
    compared: tuple[tuple[str, str], ...]
    """Pairs of line labels whose first figures are compared seed by seed: first minus second."""


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
    "losses": Ablation(
        "Losses",
        ("plcc", "gain", "srcc"),
        (
            Line("DAPO's clip", "default", 1, ROUND_1),
            Line("GSPO", "gspo", 1),
            Line("GSPO with DAPO's bounds", "gspo-wide", 1),
            Line("CISPO", "cispo", 1),
            Line("SAPO", "sapo", 1),
        ),
        tuple((one, "DAPO's clip") for one in ("GSPO", "GSPO with DAPO's bounds", "CISPO", "SAPO")),
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
