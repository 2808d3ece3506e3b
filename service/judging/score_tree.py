"""The answers to `c_score` as a tree of tokens: units, point, tenths, hundredths, end.

Units are looked into while they matter: the unlikeliest, together less than `NEGLIGIBLE`, take the decimals of the
likeliest. Hundredths are those after a unit's likeliest tenth. Neither can move a score by more than some
hundredths; on the embedded model it is less than one thousandth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.answers import MAX_SCORE
from service.engine.protocol import END, Step

DIGITS = tuple("0123456789")
UNITS = tuple("12345")
POINT = "."
TOKENS = (*DIGITS, POINT, END)

LONGEST = len("3.42") + 1
NEGLIGIBLE = 0.02
"""Share of the units' probability that need not be looked into."""


class ScoreTree:
    """Probabilities of the next token by what the answer already says."""

    def __init__(self) -> None:
        self._after: dict[str, Mapping[str, float]] = {}

    def grow(self, beginning: str, path: Sequence[Step]) -> None:
        """Adds the steps of a path that began with `beginning`."""
        for step in path:
            self._after[beginning] = step.probabilities
            if step.taken not in TOKENS or step.taken == END:
                return
            beginning += step.taken

    def unknown(self) -> list[str]:
        """The beginnings that must be looked into next; none when the tree is complete enough."""
        if "" not in self._after:
            return [""]
        missing = []
        for unit in self._likely_units():
            for beginning in (unit, unit + POINT, unit + POINT + self._likeliest_tenth(unit)):
                if beginning not in self._after:
                    missing.append(beginning)
                    break
        return missing

    def scores(self) -> dict[float, float]:
        """Probability by score; what is missing to 1 is unreadable."""
        likely = self._likely_units()
        scores: dict[float, float] = {}
        for unit in UNITS:
            below = unit if unit in likely else likely[0]
            for decimals, p in self._decimals(below).items():
                score = round(int(unit) + decimals, 2)
                if score <= MAX_SCORE:
                    scores[score] = scores.get(score, 0.0) + self._after[""][unit] * p
        return scores

    def _likely_units(self) -> list[str]:
        """The units worth a look, the likeliest first."""
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

    def _decimals(self, unit: str) -> dict[float, float]:
        """Probability by decimals, given the unit. Hundredths are those after the unit's likeliest tenth."""
        point = self._after[unit]
        tenths = self._after[unit + POINT]
        likeliest = unit + POINT + self._likeliest_tenth(unit)
        last = self._after[likeliest]
        ended = self._readable_after(likeliest + max(DIGITS, key=lambda digit: last[digit]))
        decimals = {0.0: point[END]}
        for tenth in DIGITS:
            reached = point[POINT] * tenths[tenth]
            decimals[int(tenth) / 10] = decimals.get(int(tenth) / 10, 0.0) + reached * last[END]
            for hundredth in DIGITS:
                both = round(int(tenth) / 10 + int(hundredth) / 100, 2)
                decimals[both] = decimals.get(both, 0.0) + reached * last[hundredth] * ended
        return decimals

    def _readable_after(self, score: str) -> float:
        """The probability that a score with two decimals ends there, or goes on with digits only."""
        after = self._after.get(score)
        return after[END] + sum(after[digit] for digit in DIGITS) if after else 1.0
