"""Where a round starts from, and whether it may go on: `start.json`."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticUndefined

from evoquality import ServiceError
from service.versions.store import VersionStore
from trainer.errors import WrongVersion
from trainer.files import read_json, write_json
from trainer.settings.evolve import EvolveSettings
from trainer.stages.context import RoundContext

_MAY_CHANGE = {
    "service", "operator", "store", "operator_key_file", "run", "rounds", "patience", "rollout_operator", "handover",
    "device", "reference_device", "threads", "images_per_pass", "gradient_checkpointing", "checkpoint_every", "dry_run",
    "price", "tensorboard", "mlflow", "probe",
}  # fmt: skip
_LIMITS = ("gate_", "regression_", "collapse_")


def start(context: RoundContext) -> None:
    """Writes down the version and the settings to start from; on a resume, checks that they are still the same. Rollout
    engines are brought to that version.

    Raises:
        WrongVersion: the service serves another version by now.
        ValueError: the settings are not those the round began with, or the store is not the service's.
        ServiceError: `--base` was refused; the version before serves.
    """
    context.workers.told()
    file = context.folder / "start.json"
    if not file.exists():
        write_json(file, {"version": _begin(context), "settings": _deciding(context.settings)})
    _check_settings(context, read_json(file)["settings"])
    check_version(context, _serving(context))
    context.workers.begin_with(context.base)


def check_version(context: RoundContext, serving: set[str]) -> None:
    """Raises WrongVersion if neither the version that the round started from serves, nor what it made of it."""
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
        raise ValueError(f"--base {version} is no version of {store.root}, which has {', '.join(known)}")


def _serving(context: RoundContext) -> set[str]:
    """What users are answered by, or will be: not what a rollout engine holds, or a follower that is behind."""
    told = context.workers.told().values()
    return {context.active if info.follows or info.role == "rollout" else info.version for info in told}


def _deciding(settings: EvolveSettings) -> dict[str, Any]:
    """The settings that decide what comes of a round."""
    values = settings.model_dump(mode="json").items()
    return {name: value for name, value in values if name not in _MAY_CHANGE and not name.startswith(_LIMITS)}


def _check_settings(context: RoundContext, began: dict[str, Any]) -> None:
    """A setting that came later than the round has had its default there."""
    now = _deciding(context.settings)
    defaults = {name: field.default for name, field in EvolveSettings.model_fields.items()}
    changed = [
        f"--{name.replace('_', '-')} {now[name]} (was {value})"
        for name, value in (defaults | began).items()
        if name in now and value is not PydanticUndefined and now[name] != value
    ]
    if changed:
        raise ValueError(
            f"round {context.number} in {context.settings.run} began with other settings: {', '.join(changed)}; go on "
            "with those it began with, or give another --run"
        )
