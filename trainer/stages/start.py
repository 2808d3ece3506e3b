"""The start of a round, and the checks of a resumed one: `start.json`."""

from __future__ import annotations

from pathlib import Path

from pydantic_core import PydanticUndefined

from evoquality import ServiceError
from service.versions.store import VersionStore
from trainer.errors import UserError, WrongVersion
from trainer.files import read_json, write_json
from trainer.settings.evolve import EvolveSettings
from trainer.stages.context import RoundContext

_MAY_CHANGE = {
    "operator",
    "store",
    "operator_key_file",
    "run",
    "rounds",
    "patience",
    "rollout_operator",
    "handover",
    "device",
    "reference_device",
    "threads",
    "tokens_per_pass",
    "gradient_checkpointing",
    "checkpoint_every",
    "dry_run",
    "price",
    "tensorboard",
    "mlflow",
}
"""They decide nothing about a round's result."""
_MAY_CHANGE_UNTIL = {
    "pool_unreadable": "pool.jsonl",
    "base_unreadable": "votes.done",
    "least_decided": "gate.json",
    "collapse_": "gate.json",
    "gate_": "gate.json",
    "probe": "gate.json",
    "mismatch": "gate.json",
    "regression_": "promotion.json",
}
"""Limits, by the beginnings of their names, and the round's file that exists once they were applied. All other settings
stay as the round began."""


def start(context: RoundContext) -> None:
    """Records the version and the settings to start from; on a resume, checks that they are still the same. Promotes
    that version on rollout engines.

    Raises:
        WrongVersion: the service now serves another version.
        UserError: the settings differ from those the round began with, or the store is not the service's.
        ServiceError: `--base` was refused; the version before it serves.
    """
    context.workers.replica_info()
    file, settings = context.folder / "start.json", context.settings.model_dump(mode="json")
    if not file.exists():
        write_json(file, {"version": _begin(context), "settings": settings})
    check_settings(context.folder, context.settings)
    check_version(context, _serving(context))
    write_json(file, {"version": context.base, "settings": settings})
    context.workers.begin_with(context.base)


def check_settings(folder: Path, settings: EvolveSettings) -> None:
    """Raises UserError if a round that has begun in the folder has other settings. One that is newer than the round had
    its default there, except for limits."""
    if not (folder / "start.json").exists():
        return
    began, now = read_json(folder / "start.json")["settings"], settings.model_dump(mode="json")
    changed = []
    for name, field in EvolveSettings.model_fields.items():
        until = next((file for limit, file in _MAY_CHANGE_UNTIL.items() if name.startswith(limit)), "start.json")
        was = began.get(name, field.default if until == "start.json" else now[name])
        if name not in _MAY_CHANGE and (folder / until).exists() and was not in (now[name], PydanticUndefined):
            changed.append(f"--{name.replace('_', '-')} {now[name]} (was {was})")
    if changed:
        raise UserError(
            f"{folder.name} in {folder.parent} began with other settings: {', '.join(changed)}; give those it began "
            "with, or another --run"
        )


def check_version(context: RoundContext, serving: set[str]) -> None:
    """Raises WrongVersion if neither the version that the round started from serves, nor the round's candidate."""
    made = context.folder / "candidate.json"
    allowed = {context.base, read_json(made)["id"] if made.exists() else context.base}
    if allowed.isdisjoint(serving):
        raise WrongVersion(
            f"round {context.number} started from {context.base}, but the service serves {', '.join(sorted(serving))} "
            f"now; promote {context.base} again to resume, or start a new run"
        )


def _begin(context: RoundContext) -> str:
    """The active version; for a run's first round `--base`, which is made the active one."""
    active, base = context.active, context.settings.base
    if context.number > 1 or base in {None, active}:
        return active
    _check_known(context.store, base)
    try:
        context.workers.promote(base, active)
    except ServiceError:
        context.workers.roll_back(active, base)
        raise
    return base


def _check_known(store: VersionStore, version: str) -> None:
    known = [info.id for info in store.list()]
    if version not in known:
        raise UserError(
            f"--base {version} is not in the store {store.root}, which has {', '.join(known)}; name one of those"
        )


def _serving(context: RoundContext) -> set[str]:
    """The versions that answer users, or soon will: rollout engines and followers that lag behind count as active."""
    infos = context.workers.replica_info().values()
    return {context.active if info.follows or info.role == "rollout" else info.version for info in infos}
