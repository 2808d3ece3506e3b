"""The candidate as written against the policy that the gate judged, by the log-probabilities of held-back answers.

Users get rounded weights: a merged adapter, or masters in the checkpoint's type. Two figures tell whether those are
what was learnt:

- the mean |ratio - 1| of the tokens' probabilities under the policy to those under the written weights;
- the share kept: with x what the policy learnt and y what the written weights did, both log-probabilities less those
  under the weights that the round began with, the slope <x, y> / <x, x> of y on x. Rounding errors of either sign leave
  it at 1; a near-copy of the base has 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.promotion.criteria import Criterion
from trainer.training.learner import Compared

_ERRORS = 2.0
"""Standard errors by which a share may be below its limit: it may be chance."""


def share_kept(found: Sequence[Compared]) -> tuple[float, float]:
    """The share and its standard error. Where nothing at all was learnt, all of it is kept.

    The error takes the rest, y less that share of x, for chance that falls on each image as a whole: one image's tokens
    are answers to one picture, and rounded weights err alike on all of them.
    """
    learnt = np.concatenate([each.policy - each.began for each in found])
    written = np.concatenate([each.written - each.began for each in found])
    square = float(learnt @ learnt)
    if square == 0:
        return 1.0, 0.0
    share = float(learnt @ written) / square
    return share, float(np.linalg.norm(written - share * learnt)) / (square * len(found)) ** 0.5


def apart(found: Sequence[Compared]) -> float:
    """The mean |ratio - 1| of the policy's probabilities to the written weights'."""
    with np.errstate(over="ignore"):
        return float(np.abs(np.expm1(np.concatenate([each.policy - each.written for each in found]))).mean())


def criteria(found: Sequence[Compared], *, most_apart: float, least_kept: float) -> list[Criterion]:
    """The gate's criteria of the candidate as written."""
    share, error = share_kept(found)
    distance = apart(found)
    return [
        Criterion(
            "weights as written: |ratio - 1|",
            0,
            distance,
            most_apart,
            distance <= most_apart,
            f"its weights as written answer otherwise than the policy that was judged: |ratio - 1| is {distance:.3f} "
            f"in the mean (--mismatch allows {most_apart:g})",
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
