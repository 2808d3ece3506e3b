"""The gate's criteria: each compares a candidate with the version it came from, or with a limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trainer.evaluation.bootstrap import Interval
from trainer.promotion.agreement import LEVEL, change
from trainer.promotion.behaviour import Behaviour
from trainer.settings.evolve import EvolveSettings
from trainer.voting.votes import Pair


@dataclass(frozen=True, slots=True)
class Criterion:
    """One comparison."""

    name: str
    before: float
    after: float
    limit: float
    """The limit of `after`."""
    passed: bool
    reason: str
    """The failure, in words."""
    interval: Interval | None = None
    """Of `after`, if that is an estimate whose interval must be within the limit."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision: the candidate may serve if it passes every criterion. With NaN or infinite weights it is not asked,
    and `after` is None."""

    before: Behaviour
    after: Behaviour | None
    criteria: list[Criterion]

    @property
    def reasons(self) -> list[str]:
        """The reasons against the candidate; empty if it may serve."""
        return [criterion.reason for criterion in self.criteria if not criterion.passed]

    @property
    def passed(self) -> bool:
        """True if the candidate may serve."""
        return not self.reasons

    def as_dict(self) -> dict[str, Any]:
        """For `gate.json`."""
        return {"passed": self.passed, **asdict(self), "reasons": self.reasons}


def judge(before: Behaviour, after: Behaviour, decided: Mapping[Pair, float], settings: EvolveSettings) -> Verdict:
    """Compares the candidate with the version it came from; `decided` are the labels of the held-back pairs that the
    votes decide."""
    return Verdict(before, after, [finite_weights(True), *_criteria(before, after, decided, settings)])


def finite_weights(finite: bool) -> Criterion:
    """The criterion that no weight under training is NaN or infinite."""
    return Criterion("finite weights", 1, float(finite), 1, finite, "its weights hold NaN or infinity")


def probe(before: float, after: float, settings: EvolveSettings) -> Criterion:
    """The criterion of SRCC on the labelled probe, on which nothing was trained."""
    limit = before - settings.gate_probe_loss
    reason = f"its SRCC on the labelled probe is {after:z.3f}, {before:z.3f} before"
    return Criterion("SRCC on the probe", before, after, limit, after >= limit, reason)


def regressions(
    gated: Behaviour, promoted: Behaviour, decided: Mapping[Pair, float], settings: EvolveSettings
) -> list[str]:
    """Differences between the promoted version and the gate's observation; empty if there are none."""
    reasons = [each.reason for each in _criteria(gated, promoted, decided, settings) if not each.passed]
    apart = _apart(gated, promoted)
    if apart > settings.regression_drift:
        reasons.append(f"its scores of the held-back images differ from those at the gate by {apart:.2f} in the mean")
    return reasons


def _apart(one: Behaviour, other: Behaviour) -> float:
    """Mean distance of the scores of the images that both can score."""
    both = one.scores.keys() & other.scores.keys()
    return sum(abs(one.scores[image] - other.scores[image]) for image in both) / max(1, len(both))


def _agreement(
    before: Behaviour, after: Behaviour, decided: Mapping[Pair, float], s: EvolveSettings
) -> list[Criterion]:
    """The loss of agreement must be shown to be small: without a decided pair nothing is shown."""
    found = change(before.scores, after.scores, decided)
    shown = Criterion(
        "decided held-back pairs",
        len(decided),
        found.pairs if found else 0,
        1,
        found is not None,
        f"nothing shows that it learnt: {len(decided)} of the held-back pairs are decided by the votes, and it can "
        "score both images of none",
    )
    if found is None:
        return [shown]
    low, high = found.interval
    reason = (
        f"its scores agree with {found.after:.1%} of the votes on {found.pairs:,} pairs, {found.before:.1%} before: "
        f"the change of {found.after - found.before:+z.1%} ({LEVEL:.0%} interval {low:+z.1%} to {high:+z.1%}) may be a "
        f"loss of more than {s.gate_agreement_loss:.1%} (--gate-agreement-loss; more --held-back-groups narrow the "
        "interval)"
    )
    limit = found.before - s.gate_agreement_loss
    of_after = Interval(max(0.0, found.before + low), min(1.0, found.before + high))
    passed = low >= -s.gate_agreement_loss
    return [shown, Criterion("agreement with the votes", found.before, found.after, limit, passed, reason, of_after)]


def _criteria(before: Behaviour, after: Behaviour, decided: Mapping[Pair, float], s: EvolveSettings) -> list[Criterion]:
    unreadable = before.unreadable + s.gate_unreadable
    narrow, wide = before.spread * s.gate_spread, max(before.spread, s.gate_largest_spread)
    drift = after.mean - before.mean
    bias = abs(before.position_bias) + s.gate_position_bias
    return [
        Criterion(
            "unreadable answers",
            before.unreadable,
            after.unreadable,
            unreadable,
            after.unreadable <= unreadable,
            f"{after.unreadable:.1%} of its answers are unreadable, {before.unreadable:.1%} before (cut off by the "
            f"token limit: {after.cut_off:.1%}, {before.cut_off:.1%} before)",
        ),
        *_agreement(before, after, decided, s),
        Criterion(
            "smallest spread of the scores",
            before.spread,
            after.spread,
            narrow,
            after.spread >= narrow,
            f"its scores have collapsed to a spread of {after.spread:.3f}, {before.spread:.3f} before",
        ),
        Criterion(
            "largest spread of the scores",
            before.spread,
            after.spread,
            wide,
            after.spread <= wide,
            f"its scores have widened to a spread of {after.spread:.3f}, {before.spread:.3f} before",
        ),
        Criterion(
            "drift of the mean",
            0,
            drift,
            s.gate_drift,
            abs(drift) <= s.gate_drift,
            f"its mean score has moved by {drift:+z.2f} (limit {s.gate_drift:.2f})",
        ),
        Criterion(
            "position bias",
            before.position_bias,
            after.position_bias,
            bias,
            abs(after.position_bias) <= bias,
            f"it prefers the image shown first by {after.position_bias:+z.1%}, {before.position_bias:+z.1%} before",
        ),
    ]
