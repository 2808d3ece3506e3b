"""Watches a round for the likely failure of GRPO on short answers: collapse onto a few of them; and for a policy whose
answers never differ in their reward.

Pure: reads only the metrics of the last steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from trainer.errors import Collapsed, NothingToLearn
from trainer.settings.evolve import EvolveSettings


def check(rows: Sequence[Mapping[str, float]], settings: EvolveSettings) -> None:
    """Checks the last `collapse_window` rows, oldest first; there is at least one.

    Raises:
        Collapsed: a mean over the window has passed its limit, or a metric of the last step is not finite.
    """
    for name, value in rows[-1].items():
        if not math.isfinite(value):
            raise Collapsed(f"training collapsed at step {rows[-1]['step']}: {name} is not finite; {_ADVICE}")
    window = rows[-settings.collapse_window :]
    if len(window) < settings.collapse_window:
        return
    passed = [
        _SENTENCES[name].format(mean, limit)
        for name, limit, low_is_bad in _limits(settings)
        if _is_past(mean := sum(row[name] for row in window) / len(window), limit, low_is_bad)
    ]
    if passed:
        raise Collapsed(
            f"training collapsed: over {len(window)} steps to step {rows[-1]['step']} {', '.join(passed)}; {_ADVICE}"
        )


def check_informative(rows: Sequence[Mapping[str, float]]) -> None:
    """Raises NothingToLearn if in all steps the answers about each image earned equal rewards: no weight moved."""
    if any(row["informative"] for row in rows):
        return
    constant, unreadable = (sum(row[name] for row in rows) / len(rows) for name in ("constant", "unreadable"))
    raise NothingToLearn(
        f"nothing to learn from: in all {len(rows)} steps the answers about an image earn one reward; {constant:.0%} "
        f"of the images get one answer every time, {unreadable:.0%} of the answers are unreadable; begin a new run "
        "from a --base whose answers vary and are readable, or with more --samples"
    )


_ADVICE = "begin a new run with a lower --learning-rate or a larger --beta"
_SENTENCES = {
    "entropy": "the answers' entropy is {:.3f} nats a token (limit {:.3f})",
    "score_spread": "the images' mean scores spread by {:.3f} (limit {:.3f})",
    "constant": "{:.0%} of the images got the same answer every time (limit {:.0%})",
    "unreadable": "{:.0%} of the answers are unreadable (limit {:.0%})",
    "kl": "the KL divergence from the first model is {:z.2f} nats a token (limit {:.2f})",
}


def _limits(settings: EvolveSettings) -> list[tuple[str, float, bool]]:
    """Metric, limit, and True if lower is worse."""
    return [
        ("entropy", settings.collapse_entropy, True),
        ("score_spread", settings.collapse_spread, True),
        ("constant", settings.collapse_constant, False),
        ("unreadable", settings.collapse_unreadable, False),
        ("kl", settings.collapse_kl, False),
    ]


def _is_past(value: float, limit: float, low_is_bad: bool) -> bool:
    return value < limit if low_is_bad else value > limit
