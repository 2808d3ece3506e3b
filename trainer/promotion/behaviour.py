"""The behaviour of a version, or of an adapter on it, on held-back images: voted on, never trained on, unlabelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from evoquality.contract import RolloutPrompt
from service.answers import parse_vote
from service.prompts import Profile
from trainer.pool.pool import Pool
from trainer.settings.evolve import EvolveSettings
from trainer.training.rollouts import Served, cut_off, sample_scores, to_scores
from trainer.voting.groups import Group
from trainer.voting.votes import Pair
from trainer.workers.workers import Workers

SAMPLES = 8
"""Scores sampled an image, at most: many images with a few scores each tell more than few images with many."""
COMPARED = 48
"""Pairs compared in both orders for the position bias."""
VOTES = 4
"""Answers a pair and order."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Statistics of the answers about the held-back images."""

    unreadable: float
    """Share of answers without a score, those that the token limit cut off included."""
    agreement: float
    """Share of decided held-back pairs that the mean scores order as the votes do; a tie counts half."""
    mean: float
    spread: float
    """Standard deviation of the images' mean scores."""
    cut_off: float = 0.0
    """Share of answers that the token limit ended before they had a score."""
    position_bias: float = 0.0
    """Share of readable votes for the image shown first, every pair in both orders, above one half."""
    scores: dict[str, float] = field(default_factory=dict)
    """The readable images' mean scores."""

    def figures(self) -> dict[str, float]:
        """Everything but the single images' scores, by name."""
        return {name: value for name, value in asdict(self).items() if name != "scores"}


@dataclass(frozen=True)
class Observer:
    """Asks about the held-back groups, always with the same seeds."""

    pool: Pool
    groups: Sequence[Group]
    labels: dict[Pair, float]
    profile: Profile
    samples: int
    seed: int

    def observe(self, served: Served, workers: Workers) -> Behaviour:
        """Scores every image and compares some pairs."""
        images = list(dict.fromkeys(image for group in self.groups for image in group))
        answers = sample_scores(workers, self.pool, images, served, samples=self.samples, seed=self.seed)
        sampled = to_scores(answers, self.profile)
        means = {
            image: float(np.nanmean(row)) for image, row in zip(images, sampled, strict=True) if np.isfinite(row).any()
        }
        cut = float(cut_off(answers, sampled).mean())
        votes = self._votes_by_place(served, workers)
        return behaviour(sampled, means, _pairs(self.groups), self.labels, votes, cut_off=cut)

    @property
    def decided(self) -> dict[Pair, float]:
        """The labels of the pairs that the votes decide."""
        return decided(self.groups, self.labels)

    def _votes_by_place(self, served: Served, workers: Workers) -> list[int]:
        """Readable votes: 0 for the image shown first, 1 for the other."""
        pairs = _pairs(self.groups)[:COMPARED]
        orders = [order for one, other in pairs for order in ([one, other], [other, one])]
        prompts = [
            RolloutPrompt(task="compare", images=order, samples=VOTES, seed=(self.seed + 17 * number) % 2**31)
            for number, order in enumerate(orders)
        ]
        results = workers.rollouts(prompts, self.pool, version=served.version, adapter=served.adapter)
        answers = [answer for result in results for answer in result.completions]
        votes = [parse_vote(answer.text, self.profile) for answer in answers]
        return [vote for vote in votes if vote is not None]


def decided(groups: Sequence[Group], labels: Mapping[Pair, float]) -> dict[Pair, float]:
    """The labels of the groups' pairs that the votes decide."""
    return {pair: labels[pair] for pair in _pairs(groups) if labels.get(pair, 0.5) != 0.5}


def _pairs(groups: Sequence[Group]) -> list[Pair]:
    return [pair for group in groups for pair in combinations(group, 2)]


def answers_of_one_look(s: EvolveSettings, images: int) -> int:
    """The number of answers that `Observer.observe` asks for, in a round of `images` images: scores of the held-back
    ones, and votes on some pairs in both orders."""
    compared = min(COMPARED, s.held_back_groups * comb(s.group_size, 2))
    return min(images, s.held_back_groups * s.group_size) * min(s.samples, SAMPLES) + 2 * VOTES * compared


def behaviour(
    sampled: NDArray[np.float64],
    means: dict[str, float],
    pairs: Sequence[Pair],
    labels: dict[Pair, float],
    votes_by_place: Sequence[int],
    *,
    cut_off: float = 0.0,
) -> Behaviour:
    """From (B, K) sampled scores, the readable images' means, and votes that are 0 for the image shown first."""
    agreed = [
        ordered(means[one] - means[other], labels[one, other])
        for one, other in pairs
        if one in means and other in means and labels.get((one, other), 0.5) != 0.5
    ]
    values = list(means.values()) or [0.0]
    return Behaviour(
        unreadable=float(np.isnan(sampled).mean()),
        agreement=float(np.mean(agreed)) if agreed else 0.0,
        mean=float(np.mean(values)),
        spread=float(np.std(values)),
        cut_off=cut_off,
        position_bias=0.5 - float(np.mean(votes_by_place)) if votes_by_place else 0.0,
        scores=means,
    )


def ordered(difference: float, label: float) -> float:
    """1 if a difference of scores orders a pair as its decided label does, else 0; 0.5 if there is no difference."""
    return 0.5 if difference == 0 else float((difference > 0) == (label == 1))
