"""The hot swap: `promotion.json`, or `rollback.json` if the promoted version does not behave as the gate saw it."""

from __future__ import annotations

from typing import Any

from evoquality import ServiceError
from trainer.errors import GateRefused, Regressed, WrongVersion
from trainer.files import read_json, write_json, writing
from trainer.promotion import criteria
from trainer.promotion.behaviour import Behaviour, Observer
from trainer.stages.context import RoundContext
from trainer.stages.start import check_version
from trainer.training.rollouts import Served


def promote(context: RoundContext, observer: Observer) -> None:
    """Swaps the candidate in and observes it once more; once is enough, since its weights no longer change.

    Raises:
        GateRefused: it failed the gate.
        WrongVersion: somebody moved the store's pointer since the round began, possibly back from the candidate.
        Regressed: it was swapped out again; the decision is written first, so that a kill does not undo it.
    """
    verdict = read_json(context.folder / "gate.json")
    if not verdict["passed"]:
        raise GateRefused(
            f"round {context.number}: the candidate may not serve: {'; '.join(verdict['reasons'])}; {context.base} "
            "keeps serving: change the settings in a new run, or the limits of the gate if you accept this candidate"
        )
    version, rollback = read_json(context.folder / "candidate.json")["id"], context.folder / "rollback.json"
    check_version(context, {context.active})
    if not rollback.exists():
        _check_wanted(context, version)
        with context.stage("promotion"):
            swap, reasons = _swap_in(context, version, Behaviour(**verdict["after"]), observer)
        if not reasons:
            write_json(context.folder / "promotion.json", swap)
            return
        write_json(rollback, {"version": version, "reason": "; ".join(reasons)})
    _roll_back(context, version, read_json(rollback)["reason"])


def _check_wanted(context: RoundContext, version: str) -> None:
    """Records the pointer before the promotion. If a promotion had begun and the pointer names neither that version
    nor the candidate, somebody rolled it back."""
    begun, active = context.folder / "promoting.json", context.store.active()
    if not begun.exists():
        write_json(begun, active and active.model_dump())
    elif active and active.version != version and active.model_dump() != read_json(begun):
        raise WrongVersion(
            f"round {context.number}: {version} was promoted, and somebody rolled back to {active.version}; promote "
            f"{version} again to resume, or start a new run"
        )


def _swap_in(
    context: RoundContext, version: str, gated: Behaviour, observer: Observer
) -> tuple[dict[str, Any], list[str]]:
    """The content of `promotion.json`, and the reasons against the version, by the canaries or a second look."""
    try:
        swap, behind = context.workers.promote(version, context.base)
    except ServiceError as refusal:
        if refusal.problem.code != "version_refused":
            raise
        return {}, [f"the service refused it ({refusal.problem.detail})"]
    _report_behind(context, version, behind)
    promoted = observer.observe(Served(version), context.workers)
    reasons = criteria.regressions(gated, promoted, observer.decided, context.settings)
    return {**swap.model_dump(mode="json"), "behind": behind}, reasons


def _roll_back(context: RoundContext, version: str, reason: str) -> None:
    """Takes the version back. A resumed round may repeat every step."""
    try:
        _report_behind(context, context.base, context.workers.roll_back(context.base, version))
    finally:  # even if somebody else moved the pointer, or no replica answers
        with writing(context.store.root / "refused"):
            context.store.refuse(version, f"at its promotion: {reason}")
    raise Regressed(f"round {context.number}: {version} was rolled back to {context.base}: {reason}")


def _report_behind(context: RoundContext, version: str, behind: list[str]) -> None:
    for replica in behind:
        context.stages.say(
            f"{replica} has not swapped to {version}: a follower will do so by itself; on any other replica promote "
            "it, or restart the replica"
        )
