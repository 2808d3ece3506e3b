"""The gate: may the candidate serve? `gate.json`. The candidate enters the version store in any case, marked if it was
refused: `candidate.json`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from evoquality.contract import VersionInfo
from service.prompts import Profile
from trainer.files import write_json, writing
from trainer.leftovers import run_id
from trainer.promotion import criteria
from trainer.promotion.behaviour import Observer
from trainer.promotion.criteria import Verdict
from trainer.stages.context import RoundContext
from trainer.training.handover import Handover
from trainer.training.learner import Learner
from trainer.training.rollouts import Served
from trainer.workers.workers import Workers

GateProbe = Callable[[Served, Workers, Profile], float]
"""The SRCC of a version, or of an adapter on it, on a labelled set that the round itself cannot see."""


def run_gate(
    context: RoundContext, learner: Learner, handover: Handover, observer: Observer, probe: GateProbe | None
) -> None:
    """Compares the candidate with the version it came from, and adds it to the store.

    Raises:
        DiskFull: the candidate could not be written.
    """
    with context.stage("gate"):
        verdict = _verdict(context, learner, handover, observer, probe)
    write_json(context.folder / "gate.json", verdict.as_dict())
    with context.stage("candidate"):
        candidate = _add_candidate(context, learner, verdict)
        if not verdict.passed:
            context.store.refuse(candidate.id, "; ".join(verdict.reasons))
        write_json(context.folder / "candidate.json", candidate.model_dump(mode="json"))


def _verdict(
    context: RoundContext, learner: Learner, handover: Handover, observer: Observer, probe: GateProbe | None
) -> Verdict:
    base = Served(context.base)
    before = observer.observe(base, context.workers)
    if not learner.is_finite():
        return Verdict(before, None, [criteria.finite_weights(False)])
    with handover.served(learner, "gate") as served:
        verdict = criteria.judge(before, observer.observe(served, handover.workers), observer.decided, context.settings)
        if probe:
            was, now = probe(base, context.workers, context.profile), probe(served, handover.workers, context.profile)
            verdict.criteria.append(criteria.probe(was, now, context.settings))
    return verdict


def _add_candidate(context: RoundContext, learner: Learner, verdict: Verdict) -> VersionInfo:
    """Writes the policy as a complete checkpoint and adds it to the store."""
    store, name = context.store, f"{run_id(context.settings.run)}-candidate"
    with writing(store.root / name), TemporaryDirectory(dir=store.root, prefix=f".{name}-") as folder:
        learner.save_checkpoint(Path(folder))
        figures = verdict.after.figures() if verdict.after else {}
        return store.add(
            Path(folder),
            parent=context.base,
            profile=context.profile.name,
            origin=f"evolve round {context.number}",
            metrics={f"gate_{name}": value for name, value in figures.items()},
            config=context.settings.model_dump(mode="json"),
        )
