"""May the candidate serve? `gate.json`; it enters the version store in any case, `candidate.json`, refused or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from service.contract import VersionInfo
from service.prompts import Profile
from service.versions import refusals
from service.versions.store import VersionStore
from trainer.files import write_json, writing
from trainer.leftovers import run_id
from trainer.promotion import criteria
from trainer.promotion.behaviour import Observer
from trainer.stages.context import RoundContext
from trainer.training.handover import Handover
from trainer.training.learner import Learner
from trainer.training.rollouts import Served
from trainer.workers.workers import Workers

Probe = Callable[[Served, Workers, Profile], float]
"""The SRCC of a version, or of an adapter on it, on a labelled set that the round itself cannot see."""


def judge(context: RoundContext, policy: Learner, way: Handover, observer: Observer, probe: Probe | None) -> None:
    """Asks the gate and adds the candidate to the store; a refused one is marked."""
    with context.stage("gate"):
        verdict = _verdict(context, policy, way, observer, probe)
    write_json(context.folder / "gate.json", verdict.as_dict())
    with context.stage("candidate"):
        _add_candidate(context, policy, verdict)


def _verdict(
    context: RoundContext, policy: Learner, way: Handover, observer: Observer, probe: Probe | None
) -> criteria.Verdict:
    base = Served(context.base)
    before = observer.observe(base, context.workers)
    if not policy.is_finite():
        return criteria.Verdict(before, None, [criteria.finite_weights(False)])
    with way.served(policy, "gate") as served:
        verdict = criteria.judge(before, observer.observe(served, way.workers), context.settings)
        if probe:
            was, now = probe(base, context.workers, context.profile), probe(served, way.workers, context.profile)
            verdict.criteria.append(criteria.probe(was, now, context.settings))
    return verdict


def _add_candidate(context: RoundContext, policy: Learner, verdict: criteria.Verdict) -> None:
    info = add_candidate(
        policy, context.store, label=f"{run_id(context.settings.run)}-candidate", parent=context.base,
        profile=context.profile.name, origin=f"evolve round {context.number}",
        metrics={f"gate_{name}": value for name, value in verdict.after.figures().items()} if verdict.after else {},
        config=context.settings.model_dump(mode="json"),
    )  # fmt: skip
    if not verdict.passed:
        refusals.refuse(context.store, info.id, "; ".join(verdict.reasons))
    write_json(context.folder / "candidate.json", info.model_dump(mode="json"))


def add_candidate(
    learner: Learner,
    store: VersionStore,
    *,
    label: str,
    parent: str,
    profile: str,
    origin: str,
    metrics: dict[str, float],
    config: dict[str, Any],
) -> VersionInfo:
    """Writes a checkpoint that stands alone and adds it to the store.

    `label` begins the name of the folder it is made in. Raises DiskFull.
    """
    with writing(store.root / label), TemporaryDirectory(dir=store.root, prefix=f".{label}-") as folder:
        learner.save_checkpoint(Path(folder))
        return store.add(Path(folder), parent=parent, profile=profile, origin=origin, metrics=metrics, config=config)
