"""GRPO on the groups: `train/`; `collapse.json` if it was stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trainer.errors import Collapsed
from trainer.files import read_json, write_json
from trainer.pool.pool import Pool
from trainer.reporting.trackers import Trackers
from trainer.stages.context import RoundContext
from trainer.training import distributed, learner
from trainer.training.handover import Handover, handover
from trainer.training.learner import Learner
from trainer.training.online import OnlineStage
from trainer.training.targets import Target
from trainer.voting.pairs import Group


@contextmanager
def learning(context: RoundContext) -> Iterator[tuple[Learner, Handover]]:
    """What is trained, and its way to the engine. Raises Collapsed if the training did already."""
    s, collapsed = context.settings, context.folder / "collapse.json"
    if collapsed.exists():
        raise Collapsed(read_json(collapsed)["reason"])
    with handover(s, context.workers, context.store, context.base, context.stages.say) as way:
        engine, version = way.workers.info(), context.store.path(context.base)
        with distributed.built(learner.begin, version, context.profile, s, context.seed, engine) as policy:
            yield policy, way


def train(
    context: RoundContext,
    policy: Learner,
    way: Handover,
    images: Pool,
    groups: list[Group],
    target: Target,
    trackers: Trackers,
) -> None:
    """Raises Collapsed."""
    s = context.settings
    stage = OnlineStage(policy, images, target, context.profile, way, s, context.seed, context.folder / "train")
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
    return f"reward {metrics['reward']:.3f}  KL {metrics['kl']:.3f}  unreadable {metrics['unreadable']:.1%}"
