"""How long a study takes: told from the rounds that are done."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from tests.benchmarks.ablations.trial import Trial


def tell(planned: Sequence[Trial]) -> str:
    """How many rounds are left, and how long they will take once the first is done."""
    left = sum(len(trial.left) for trial in planned)
    said = f"{left} of {sum(trial.arm.rounds for trial in planned)} rounds left"
    seconds = seconds_left(planned)
    return f"{said}, about {seconds / 60:.0f} min" if seconds else said


def seconds_left(planned: Sequence[Trial]) -> float | None:
    """A round takes as long as the same arm's with other seeds, or as all in the mean. None before the first."""
    took = [(trial.arm, float(row["seconds"])) for trial in planned for row in trial.results]
    if not took:
        return None
    total = 0.0
    for trial in planned:
        same = [seconds for arm, seconds in took if arm == trial.arm]
        total += len(trial.left) * mean(same or [seconds for _, seconds in took])
    return total
