"""The candidate as written against the policy that the gate judged, by the log-probabilities of held-back answers.

Users get rounded weights: a merged adapter, or masters in the checkpoint's type. Two figures tell whether those are
what was learnt:

- the mean |ratio - 1| of the tokens' probabilities under the policy to those under the written weights;
- the share kept: with x what the policy learnt and y what the written weights did, both log-probabilities less those
  under the weights that the round began with, the slope <x, y> / <x, x> of y on x. Rounding errors that cancel leave it
  at 1; a near-copy of the base has 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.promotion.criteria import Criterion
from trainer.training.learner import Compared

_ERRORS = 3.0
"""Standard errors by which a share may be below its limit: it may be chance."""


def slope(found: Sequence[Compared]) -> tuple[float, float]:
    """The share kept and its standard error, robust to the likeness of one image's tokens (Liang and Zeger, Biometrika
    73, 1986). Where nothing at all was learnt, all of it is kept."""
    learnt = [each.policy - each.began for each in found]
    kept = [each.written - each.began for each in found]
    square = sum(float(x @ x) for x in learnt)
    if square == 0:
        return 1.0, 0.0
    share = sum(float(x @ y) for x, y in zip(learnt, kept, strict=True)) / square
    scores = [float(x @ (y - share * x)) for x, y in zip(learnt, kept, strict=True)]
    return share, (sum(score**2 for score in scores) * len(found) / max(1, len(found) - 1)) ** 0.5 / square


def apart(found: Sequence[Compared]) -> float:
    """The mean |ratio - 1| of the policy's probabilities to the written weights'."""
    with np.errstate(over="ignore"):
        return float(np.abs(np.expm1(np.concatenate([each.policy - each.written for each in found]))).mean())


def criteria(found: Sequence[Compared], *, most_apart: float, least_kept: float) -> list[Criterion]:
    """The gate's criteria of the candidate as written."""
    share, error = slope(found)
    distance = apart(found)
    return [
        Criterion(
            "weights as written: |ratio - 1|",
            0,
            distance,
            most_apart,
            distance <= most_apart,
            f"its weights as written answer otherwise than the policy that was judged: |ratio - 1| is {distance:.3f} in "
            f"the mean (--mismatch allows {most_apart:g})",
        ),
        Criterion(
            "weights as written: share of what was learnt",
            1,
            share,
            least_kept,
            share + _ERRORS * error >= least_kept,
            f"its weights as written keep {share:.0%} of what was learnt (--gate-kept asks for {least_kept:.0%}): the "
            "rest was lost in rounding",
        ),
    ]
