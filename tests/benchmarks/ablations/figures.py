"""The figures that the tables show of a round: each read from a row of `results.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.ablations.arms import ARMS, DOMAIN, OUT_OF_DOMAIN
from trainer.reporting.averages import weighted_mean

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """`of` gives None where a row does not have it: a starting checkpoint has cast no votes."""

    heading: str
    of: Callable[[Row], float | None]
    digits: int = 3


def _weighted(metric: str, wanted: Callable[[str], bool] = lambda name: True) -> Callable[[Row], float]:
    """The average over the benchmarks that are wanted, weighted by their number of images."""

    def average(row: Row) -> float:
        sets = {name: metrics for name, metrics in row["benchmarks"].items() if wanted(name)}
        return weighted_mean({name: m[metric] for name, m in sets.items()}, {name: m["n"] for name, m in sets.items()})

    return average


def _share(name: str) -> Callable[[Row], float | None]:
    """Of the round's votes, in percent."""
    return lambda row: None if row.get("vote", {}).get(name) is None else 100 * float(row["vote"][name])


def _ties(row: Row) -> float | None:
    """Of the labels that were trained on; soft ones know none."""
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
