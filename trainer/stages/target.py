"""What the training aims at: the votes' labels, or, for the ablation, mean scores, `mean_scores.json`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from trainer.files import read_json, write_json
from trainer.pool.pool import Pool
from trainer.stages.context import RoundContext
from trainer.training import scores
from trainer.training.served import Served
from trainer.training.targets import Ranking, Regression, Target
from trainer.voting.pairs import Group
from trainer.voting.vote import PairVotes, labels_of


def target(context: RoundContext, images: Pool, training: Sequence[Group], votes: Sequence[PairVotes]) -> Target:
    """By the settings' reward and labels."""
    s = context.settings
    if s.reward == "regression":
        return Regression(_mean_scores(context, images, training))
    return Ranking(labels_of(votes, soft=s.labels == "soft"), s.gamma)


def _mean_scores(context: RoundContext, images: Pool, training: Sequence[Group]) -> dict[str, float]:
    """The mean of each image's readable scores by the version the round starts from."""
    file = context.folder / "mean_scores.json"
    if not file.exists():
        asked = list(dict.fromkeys(chain.from_iterable(training)))
        with context.stage("mean scores", total=len(asked), unit="images") as advance:
            k, base = context.settings.samples, Served(context.base)
            answers = scores.sample(context.workers, images, asked, base, samples=k, seed=context.seed, advance=advance)
        sampled = scores.to_scores(answers, context.profile)
        rows = zip(asked, sampled, strict=True)
        write_json(file, {image: float(np.nanmean(row)) for image, row in rows if np.isfinite(row).any()})
    return dict(read_json(file))
