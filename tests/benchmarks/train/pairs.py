"""What the same number of votes tells of an image set's order, by how the pairs were chosen.

Labels are those of the round; Bradley-Terry strengths fitted to them are held against the truth of the demo's pool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from service.prompts import PROFILES
from service.ranking.strengths import Preference, fit
from tests.benchmarks.train.votes import demo_pool
from tests.engine.running import Running
from trainer.evaluation.pseudo_labels.pool_audit import audit, true_qualities
from trainer.pool.pool import Pool
from trainer.training.rollouts import Served, sample_scores, to_scores
from trainer.voting.groups import STRENGTH_SAMPLES, Group, chained_groups, pairs_of, random_groups, strengths
from trainer.voting.voters import ExactVoter, cast
from trainer.voting.votes import PairVotes, labels_of
from trainer.workers.workers import Workers

IMAGES, GROUPS, SIZE, SEEDS = 160, 14, 12, range(3)


@dataclass(frozen=True)
class _Bench:
    pool: Pool
    workers: Workers
    version: str
    folder: Path
    scores: Mapping[str, float]

    def figures(self, name: str, groups: Sequence[Group]) -> dict[str, float]:
        """Votes on every pair of the groups, and what they tell."""
        file, pairs = self.folder / f"{name}.jsonl", pairs_of(groups)
        file.unlink(missing_ok=True)
        voter = ExactVoter(self.pool, self.workers.asynchronous, self.version)
        votes = self.workers.call(lambda: cast(pairs, voter, file, advance=lambda count: None))
        labels = labels_of(votes)
        known = [pair for pair in pairs if labels[pair] != 0.5]
        told = [labels[a, b] != float(self.scores[a] > self.scores[b]) for a, b in known]
        return {
            "pairs": len(pairs),
            "kendall_tau": self._order(votes),
            "label_accuracy": audit(votes, true_qualities(self.pool)).accuracy,
            "labels_against_the_scores": float(np.mean(told)),
        }

    def _order(self, votes: Sequence[PairVotes]) -> float:
        """Kendall's tau between the truth and the strengths that the labels make."""
        ids = list(self.scores)
        place = {name: number for number, name in enumerate(ids)}
        asked = [Preference(place[v.first], place[v.second], v.label, 1.0) for v in votes if v.label is not None]
        truth = true_qualities(self.pool)
        return float(kendalltau(fit(len(ids), asked, "votes").values, [truth[name] for name in ids]).statistic)


def measure_pairs(service: Running, folder: Path) -> dict[str, dict[str, float]]:
    """Means over seeds, by the strategy: pairs, Kendall's tau, label accuracy, labels that contradict the scores."""
    pool = demo_pool(folder)
    drawn = Pool([pool.images[place] for place in np.random.default_rng(0).permutation(len(pool.images))[:IMAGES]])
    ids = [image.id for image in drawn.images]
    with Workers([service.operator_url], service.key, service.store, 60, print) as workers:
        answers = sample_scores(workers, pool, ids, Served(service.active), samples=STRENGTH_SAMPLES, seed=0)
        strength = strengths(ids, to_scores(answers, PROFILES["plain"]))
        bench = _Bench(pool, workers, service.active, folder, strength)
        strategies: Mapping[str, Callable[[int], list[Group]]] = {
            "random": lambda seed: random_groups(drawn, GROUPS, SIZE, seed),
            "informative": lambda seed: chained_groups(strength, GROUPS, SIZE, seed),
        }
        found = {name: [bench.figures(name, draw(seed)) for seed in SEEDS] for name, draw in strategies.items()}
    return {name: {key: float(np.mean([row[key] for row in rows])) for key in rows[0]} for name, rows in found.items()}
