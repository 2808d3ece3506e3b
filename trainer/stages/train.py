"""The online stage: GRPO on the groups, `train/`; `collapse.json` if it was stopped; `mean_scores.json` for the
ablation whose reward is nearness to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np

from trainer.errors import Collapsed
from trainer.files import read_json, write_json
from trainer.pool.pool import Pool
from trainer.reporting.trackers import Trackers
from trainer.stages.context import RoundContext
from trainer.stages.fit import fitted
from trainer.training import distributed, learner
from trainer.training.handover import Handover, open_handover
from trainer.training.learner import Learner
from trainer.training.online import OnlineStage
from trainer.training.reward import Ranking, Regression, Target
from trainer.training.rollouts import Served, sample_scores, to_scores
from trainer.voting.groups import Group
from trainer.voting.votes import PairVotes, labels_of


def reward_target(context: RoundContext, images: Pool, training: Sequence[Group], votes: Sequence[PairVotes]) -> Target:
    """The training's target, by the settings' reward and labels."""
    s = context.settings
    if s.reward == "regression":
        return Regression(_mean_scores(context, images, training))
    return Ranking(labels_of(votes, soft=s.labels == "soft"), s.gamma)


@contextmanager
def learning(context: RoundContext) -> Iterator[tuple[Learner, Handover]]:
    """The learner and its handover to the engine, for the block.

    Raises:
        Collapsed: the training collapsed in an earlier process.
    """
    s, collapsed = context.settings, context.folder / "collapse.json"
    if collapsed.exists():
        raise Collapsed(read_json(collapsed)["reason"])
    with open_handover(s, context.workers, context.store, context.base, context.stages.say) as handover:
        engine, version = handover.workers.info(), context.store.path(context.base)
        begun = version, context.profile, fitted(context), context.seed, engine
        with distributed.built(learner.begin, *begun) as policy:
            yield policy, handover


def train(
    context: RoundContext,
    policy: Learner,
    handover: Handover,
    images: Pool,
    groups: list[Group],
    target: Target,
    trackers: Trackers,
) -> None:
    """Trains on all groups.

    Raises:
        Collapsed: the policy collapsed; the reason is in `collapse.json`.
        EngineMismatch: before the first step engine and trainer disagree.
    """
    s, folder, served = context.settings, context.folder / "train", handover.workers.info().dtype
    stage = OnlineStage(policy, images, target, context.profile, handover, s, context.seed, folder, served)
    with context.stage("GRPO", total=len(groups) * s.epochs, unit="steps") as advance:

        def follow(metrics: dict[str, Any] | None, steps: int) -> None:
            advance(steps, _summary(metrics))
            trackers.follow(context.number, metrics, steps)

        try:
            stage.run(groups, follow)
        except Collapsed as collapsed:
            write_json(context.folder / "collapse.json", {"reason": str(collapsed)})
            raise


def _summary(metrics: dict[str, Any] | None) -> str:
    if metrics is None:
        return ""
    kl = "–" if metrics["kl"] is None else f"{metrics['kl']:z.3f}"
    said = f"reward {metrics['reward']:z.3f}  KL {kl}  unreadable {metrics['unreadable']:.1%}"
    cut = f"  cut off {metrics['cut_off']:.1%}" if metrics["cut_off"] else ""
    return said + cut + ("  skipped: not finite" if metrics["skipped"] else "")


def _mean_scores(context: RoundContext, images: Pool, training: Sequence[Group]) -> dict[str, float]:
    """The mean of each image's readable scores by the version the round starts from."""
    file = context.folder / "mean_scores.json"
    if not file.exists():
        asked = list(dict.fromkeys(chain.from_iterable(training)))
        with context.stage("mean scores", total=len(asked), unit="images") as advance:
            k, base = context.settings.samples, Served(context.base)
            answers = sample_scores(context.workers, images, asked, base, samples=k, seed=context.seed, advance=advance)
        rows = zip(asked, to_scores(answers, context.profile), strict=True)
        write_json(file, {image: float(np.nanmean(row)) for image, row in rows if np.isfinite(row).any()})
    return dict(read_json(file))
