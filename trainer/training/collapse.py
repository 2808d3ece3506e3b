"""Watches a round for the likely failure of GRPO on short answers: collapse onto a few of them; and for a policy whose
answers never differ in their reward.

Pure: reads only the metrics of the last steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from trainer.errors import Collapsed, NothingToLearn
from trainer.settings.evolve import EvolveSettings

Row = Mapping[str, float | None]
"""A line of `steps.jsonl`."""


def check(rows: Sequence[Row], settings: EvolveSettings) -> None:
    """Checks the last `collapse_window` rows, oldest first.

    Raises:
        Collapsed: a mean over the window has passed its limit.
    """
    window = rows[-settings.collapse_window :]
    if len(window) < settings.collapse_window:
        return
    passed = [
        _SENTENCES[name].format(mean, limit)
        for name, limit, low_is_bad in _limits(settings)
        if _is_past(mean := _mean(window, name), limit, low_is_bad)
    ]
    if passed:
        raise Collapsed(
            f"training collapsed: over {len(window)} steps to step {rows[-1]['step']} {', '.join(passed)}; {_ADVICE}"
        )


def check_skipped(rows: Sequence[Row], limit: int) -> None:
    """Raises Collapsed if the last `limit` steps were skipped."""
    last = rows[-limit:]
    if len(last) == limit and all(row.get("skipped") for row in last):
        raise Collapsed(
            f"training collapsed at step {rows[-1]['step']}: loss or gradients of {limit} steps in a row were not "
            f"finite (--collapse-skipped); {_ADVICE}, or with --dtype float32"
        )


def check_informative(rows: Sequence[Row]) -> None:
    """Raises NothingToLearn if in all steps the answers about each image earned equal rewards: no weight moved."""
    if any(row["informative"] for row in rows):
        return
    constant, unreadable, cut = (_mean(rows, name) for name in ("constant", "unreadable", "cut_off"))
    raise NothingToLearn(
        f"nothing to learn from: in all {len(rows)} steps the answers about an image earn one reward; {constant:.0%} "
        f"of the images get one answer every time, {unreadable:.0%} of the answers are unreadable and {cut:.0%} cut "
        "off by the token limit; begin a new run from a --base whose answers vary and are readable, or with more "
        "--samples"
    )


def _mean(rows: Sequence[Row], name: str) -> float:
    """Over the steps that have the figure: a skipped step may lack it. NaN, which passes no limit, without any."""
    if name == "no_score":
        return _mean(rows, "unreadable") + _mean(rows, "cut_off")
    known = [value for row in rows if (value := row.get(name, 0.0)) is not None]
    return sum(known) / len(known) if known else math.nan


_ADVICE = "begin a new run with a lower --learning-rate or a larger --beta"
_SENTENCES = {
    "entropy": "the answers' entropy is {:.3f} nats a token (limit {:.3f})",
    "score_spread": "the images' mean scores spread by {:.3f} (limit {:.3f})",
    "constant": "{:.0%} of the images got the same answer every time (limit {:.0%})",
    "no_score": "{:.0%} of the answers are unreadable or cut off (limit {:.0%})",
    "kl": "the KL divergence from the first model is {:z.2f} nats a token (limit {:.2f})",
}


def _limits(settings: EvolveSettings) -> list[tuple[str, float, bool]]:
    """Metric, limit, and True if lower is worse."""
    return [
        ("entropy", settings.collapse_entropy, True),
        ("score_spread", settings.collapse_spread, True),
        ("constant", settings.collapse_constant, False),
        ("no_score", settings.collapse_unreadable, False),
        ("kl", settings.collapse_kl, False),
    ]


def _is_past(value: float, limit: float, low_is_bad: bool) -> bool:
    return value < limit if low_is_bad else value > limit
