"""How often the gate is wrong about the agreement with the votes, by simulated rounds.

    python -m tests.benchmarks.gate [--rounds 200]     runs/bench/gate.json

A candidate that is as good as the version before should pass, and one whose scores agree with 0.05 less of the votes
should not. Pictures have a hidden quality; votes see it with little noise and call the closest quarter of the pairs
ties; a version's scores are the quality with noise of its own, and with noise that both versions share.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from trainer.files import write_json
from trainer.promotion.agreement import change
from trainer.settings.evolve import GateSettings, PoolSettings

GROUP, AGREEMENT, LOSS = 12, 0.8, 0.05
SHARED = (0.0, 0.5, 0.9)
"""Shares of the errors' variance that the two versions have in common."""
BEFORE = (48, "a loss above 0.03")
"""Pictures and rule of the gate before it had an interval."""
_VOTE_NOISE, _TIES = 0.3, 0.25
Scores = dict[str, float]


@dataclass(frozen=True, slots=True)
class Errors:
    """Shares of simulated rounds that the gate gets wrong, over `SHARED` from the least to the most."""

    pictures: int
    rule: str
    equal_refused: list[float]
    worse_passed: list[float]


def main(
    rounds: Annotated[int, typer.Option(help="Simulated rounds a figure.")] = 200,
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("runs/bench/gate.json"),
) -> None:
    """Simulates rounds and writes the error rates."""
    found = [asdict(errors(pictures, rule, rounds)) for pictures, rule in _cases()]
    write_json(out, {"rounds": rounds, "agreement": AGREEMENT, "loss": LOSS, "shared": SHARED, "table": found})
    Console().print_json(data=found)


def _cases() -> Iterator[tuple[int, str]]:
    yield BEFORE
    default = PoolSettings.model_fields["held_back_groups"].default * GROUP
    yield from ((pictures, "its interval") for pictures in (48, default // 2, default, 2 * default))


def errors(pictures: int, rule: str, rounds: int) -> Errors:
    """Both error rates of a rule with so many held-back pictures."""
    refused = [1 - passed(pictures, rule, rounds, 0.0, shared) for shared in SHARED]
    return Errors(pictures, rule, refused, [passed(pictures, rule, rounds, LOSS, shared) for shared in SHARED])


def passed(pictures: int, rule: str, rounds: int, loss: float, shared: float) -> float:
    """The share of rounds in which a candidate passes that lost so much agreement."""
    rng = np.random.default_rng(0)
    return float(np.mean([_passes(rule, *simulated(pictures, loss, shared, rng)) for _ in range(rounds)]))


def simulated(
    pictures: int, loss: float, shared: float, rng: np.random.Generator
) -> tuple[Scores, Scores, dict[tuple[str, str], float]]:
    """A round's held-back pictures: their scores before and after, and the labels of the decided pairs."""
    quality, both = rng.standard_normal((2, pictures))
    groups = np.split(np.arange(pictures), range(GROUP, pictures, GROUP))
    pairs = np.array([pair for group in groups for pair in combinations(group, 2)])
    votes = _differences(quality + _VOTE_NOISE * rng.standard_normal(pictures), pairs)
    decided = np.abs(votes) > np.quantile(np.abs(votes), _TIES)
    labels = {
        (str(one), str(other)): float(vote > 0)
        for (one, other), vote in zip(pairs[decided], votes[decided], strict=True)
    }
    before, after = (
        quality + noise(agreement) * (shared**0.5 * both + (1 - shared) ** 0.5 * rng.standard_normal(pictures))
        for agreement in (AGREEMENT, AGREEMENT - loss)
    )
    return _named(before), _named(after), labels


@cache
def noise(agreement: float) -> float:
    """The deviation of a version's errors with which its scores agree with that share of the votes."""
    rng = np.random.default_rng(1)
    quality, seen, error = rng.standard_normal((3, 200_000))
    pairs = np.arange(200_000).reshape(-1, 2)
    votes = _differences(quality + _VOTE_NOISE * seen, pairs)
    decided = np.abs(votes) > np.quantile(np.abs(votes), _TIES)
    low, high = 0.0, 10.0
    for _ in range(30):
        middle = (low + high) / 2
        agreed = (_differences(quality + middle * error, pairs) * votes > 0)[decided].mean()
        low, high = (middle, high) if agreed > agreement else (low, middle)
    return low


def _passes(rule: str, before: Scores, after: Scores, decided: dict[tuple[str, str], float]) -> bool:
    found = change(before, after, decided)
    assert found is not None
    if rule == "its interval":
        return found.interval.low >= -GateSettings.model_fields["gate_agreement_loss"].default
    return found.after >= found.before - 0.03


def _differences(values: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return values[pairs[:, 0]] - values[pairs[:, 1]]


def _named(values: np.ndarray) -> Scores:
    return {str(number): float(value) for number, value in enumerate(values)}


if __name__ == "__main__":
    typer.run(main)
