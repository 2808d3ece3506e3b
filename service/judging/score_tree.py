"""The answers to `c_score` as a tree of tokens: units, point, tenths, hundredths, end.

Two approximations save forward passes. The least likely units, together less than `NEGLIGIBLE`, take the decimals of
the likeliest unit. All tenths of a unit take the hundredths that follow its likeliest tenth. Together they move a score
by less than a tenth in the worst possible case, and by less than a thousandth on the embedded model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.answers import MAX_SCORE, MIN_SCORE
from service.engine.protocol import END, SPACES, Step
from service.errors import EngineFailure

DIGITS = tuple("0123456789")
UNITS = tuple("12345")
POINT = "."
TOKENS = (*DIGITS, POINT, END)

FloatArray = NDArray[np.float64]

SCORES = np.arange(round(MIN_SCORE * 100), round(MAX_SCORE * 100) + 1) / 100
"""1.00, 1.01 ... 5.00."""
LONGEST = len("3.42") + 1
NEGLIGIBLE = 0.05
"""Share of the units' probability whose decimals are not looked up."""


class ScoreTree:
    """Probabilities of the next token by the beginning of the answer, which may follow on a space, `lead`."""

    def __init__(self) -> None:
        self.lead = ""
        self._after: dict[str, Mapping[str, float]] = {}

    def grow(self, beginning: str, path: Sequence[Step]) -> None:
        """Adds the steps of a path that began with `beginning`. Raises EngineFailure if there are none."""
        if not path:
            raise EngineFailure("The engine returned no token probabilities.")
        if not beginning:
            self.lead, path = behind_space(path, UNITS)
        for step in path:
            self._after[beginning] = step.probabilities
            if step.taken not in TOKENS or step.taken == END:
                return
            beginning += step.taken

    def unknown(self) -> list[str]:
        """The beginnings to look up next; none when the tree is complete enough."""
        if "" not in self._after:
            return [""]
        missing = []
        for unit in self._likely_units():
            for beginning in (unit, unit + POINT, unit + POINT + self._likeliest_tenth(unit)):
                if beginning not in self._after:
                    missing.append(beginning)
                    break
        return missing

    def scores(self) -> FloatArray:
        """Probabilities of `SCORES`, shape (401,). The rest up to 1 is unreadable."""
        likely = self._likely_units()
        decimals = {unit: self._decimals(unit) for unit in likely}
        units = self._after[""]
        weights = np.concatenate([units[unit] * decimals.get(unit, decimals[likely[0]]) for unit in UNITS])
        return weights[: len(SCORES)]

    def _likely_units(self) -> list[str]:
        """The units whose decimals are looked up, the likeliest first."""
        units = self._after[""]
        left = sum(units[unit] for unit in UNITS)
        enough = NEGLIGIBLE * left
        likely: list[str] = []
        for unit in sorted(UNITS, key=lambda unit: -units[unit]):
            if likely and left <= enough:
                break
            likely.append(unit)
            left -= units[unit]
        return likely

    def _likeliest_tenth(self, unit: str) -> str:
        tenths = self._after.get(unit + POINT)
        return max(DIGITS, key=lambda digit: tenths[digit]) if tenths else ""

    def _decimals(self, unit: str) -> FloatArray:
        """Probabilities of the decimals .00 to .99 given the unit, shape (100,)."""
        point, tenths = self._after[unit], _of_digits(self._after[unit + POINT])
        likeliest = unit + POINT + self._likeliest_tenth(unit)
        last = self._after[likeliest]
        hundredths = _of_digits(last) * self._readable_after(likeliest + max(DIGITS, key=last.__getitem__))
        hundredths[0] += last[END]
        decimals = np.float64(point[POINT]) * np.outer(tenths, hundredths).ravel()
        decimals[0] += point[END]
        return decimals

    def _readable_after(self, score: str) -> float:
        """The probability that a score with two decimals ends there, or continues with digits only."""
        after = self._after.get(score)
        return after[END] + sum(after[digit] for digit in DIGITS) if after else 1.0


def behind_space(path: Sequence[Step], answers: Sequence[str]) -> tuple[str, Sequence[Step]]:
    """The space that likely stands before an answer ("" if none does), and the path that begins with the answer.

    Each of `answers` has its probability with a space before it or not. If a space is less likely, the answers behind
    it are taken to be as likely as those without one.
    """
    first = path[0].probabilities
    spaces = sum(first.get(space, 0.0) for space in SPACES)
    if path[0].taken in SPACES and len(path) > 1:
        behind = path[1].probabilities
        merged = {token: first[token] + spaces * behind[token] for token in behind}
        return path[0].taken, [Step(path[1].taken, merged), *path[2:]]
    readable = sum(first[answer] for answer in answers)
    if not spaces or not readable:
        return "", path
    scaled = {token: share * (1 + spaces / readable) for token, share in first.items()}
    return "", [Step(path[0].taken, scaled), *path[1:]]


def _of_digits(probabilities: Mapping[str, float]) -> FloatArray:
    return np.array([probabilities[digit] for digit in DIGITS], np.float64)
