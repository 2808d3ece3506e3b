"""May this candidate serve? Judged on held-back groups: voted on, never trained on. No label is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.prompts import Profile
from trainer.pool.pool import Pool
from trainer.settings import EvolveSettings
from trainer.training import scores
from trainer.training.served import Served
from trainer.voting.pairs import Group
from trainer.voting.vote import Pair
from trainer.workers.workers import Workers


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a version (or an adapter on it) scores the held-back images."""

    unreadable: float
    """Share of answers without a score."""
    agreement: float
    """Share of decided held-back pairs that the mean scores order as the votes do; a tie counts half."""
    mean: float
    spread: float
    """Standard deviation of the images' mean scores."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """One figure that a candidate is judged by."""

    name: str
    before: float
    after: float
    limit: float
    """What `after` may not pass."""
    passed: bool
    reason: str
    """In words, why it fails if it does."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's decision: the candidate may serve if it passes every criterion."""

    before: Behaviour
    after: Behaviour
    criteria: list[Criterion]

    @property
    def reasons(self) -> list[str]:
        """Why the candidate may not serve; empty if it may."""
        return [criterion.reason for criterion in self.criteria if not criterion.passed]

    @property
    def passed(self) -> bool:
        """Whether the candidate may serve."""
        return not self.reasons

    def as_dict(self) -> dict[str, Any]:
        """For `gate.json`."""
        return {"passed": self.passed, **asdict(self), "reasons": self.reasons}


def judge(before: Behaviour, after: Behaviour, settings: EvolveSettings) -> Verdict:
    """Compares the candidate with the version it came from."""
    unreadable = settings.gate_unreadable
    agreement = before.agreement - settings.gate_agreement_loss
    spread = before.spread * settings.gate_spread
    return Verdict(
        before,
        after,
        [
            Criterion(
                "unreadable answers", before.unreadable, after.unreadable, unreadable, after.unreadable <= unreadable,
                f"{after.unreadable:.1%} of its answers are unreadable (limit {unreadable:.1%})",
            ),
            Criterion(
                "agreement with the votes", before.agreement, after.agreement, agreement, after.agreement >= agreement,
                f"its scores agree with {after.agreement:.1%} of the votes, {before.agreement:.1%} before",
            ),
            Criterion(
                "spread of the scores", before.spread, after.spread, spread, after.spread >= spread,
                f"its scores have collapsed to a spread of {after.spread:.3f}, {before.spread:.3f} before",
            ),
        ],
    )  # fmt: skip


def observe(
    workers: Workers,
    pool: Pool,
    groups: Sequence[Group],
    labels: dict[Pair, float],
    profile: Profile,
    served: Served,
    *,
    samples: int,
    seed: int,
) -> Behaviour:
    """Scores the held-back images and measures the behaviour."""
    images = list(dict.fromkeys(image for group in groups for image in group))
    answers = scores.sample(workers, pool, images, served, samples=samples, seed=seed)
    sampled = scores.to_scores(answers, profile)
    means = {
        image: float(np.nanmean(row)) for image, row in zip(images, sampled, strict=True) if np.isfinite(row).any()
    }
    return behaviour(sampled, means, [pair for group in groups for pair in combinations(group, 2)], labels)


def behaviour(
    sampled: NDArray[np.float64], means: dict[str, float], pairs: Sequence[Pair], labels: dict[Pair, float]
) -> Behaviour:
    """The figures of `Behaviour` from (B, K) sampled scores and the readable images' means."""
    agreed = [
        _agreement(means[one] - means[other], labels[one, other])
        for one, other in pairs
        if one in means and other in means and labels.get((one, other), 0.5) != 0.5
    ]
    values = list(means.values()) or [0.0]
    return Behaviour(
        unreadable=float(np.isnan(sampled).mean()),
        agreement=float(np.mean(agreed)) if agreed else 0.0,
        mean=float(np.mean(values)),
        spread=float(np.std(values)),
    )


def _agreement(difference: float, label: float) -> float:
    return 0.5 if difference == 0 else float((difference > 0) == (label == 1))
