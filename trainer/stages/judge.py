"""May the candidate serve? `gate.json`; it enters the version store in any case, `candidate.json`, refused or not."""

from __future__ import annotations

from collections.abc import Callable

from service.prompts import Profile
from trainer.files import write_json
from trainer.leftovers import run_id
from trainer.promotion import candidate, gate
from trainer.promotion.behaviour import Observer
from trainer.stages.context import RoundContext
from trainer.training.handover import Handover
from trainer.training.learner import Learner
from trainer.training.served import Served
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
) -> gate.Verdict:
    base = Served(context.base)
    before = observer.observe(base, context.workers)
    if not policy.is_finite():
        return gate.Verdict(before, None, [gate.finite_weights(False)])
    with way.served(policy, "gate") as served:
        verdict = gate.judge(before, observer.observe(served, way.workers), context.settings)
        if probe:
            was, now = probe(base, context.workers, context.profile), probe(served, way.workers, context.profile)
            verdict.criteria.append(gate.probe(was, now, context.settings))
    return verdict


def _add_candidate(context: RoundContext, policy: Learner, verdict: gate.Verdict) -> None:
    info = candidate.add_candidate(
        policy, context.store, label=f"{run_id(context.settings.run)}-candidate", parent=context.base,
        profile=context.profile.name, origin=f"evolve round {context.number}",
        metrics={f"gate_{name}": value for name, value in verdict.after.figures().items()} if verdict.after else {},
        config=context.settings.model_dump(mode="json"),
    )  # fmt: skip
    if not verdict.passed:
        context.store.refuse(info.id, "; ".join(verdict.reasons))
    write_json(context.folder / "candidate.json", info.model_dump(mode="json"))
