"""Where a round starts from, and whether it may go on: `start.json`."""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticUndefined

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
    """Writes down the version and the settings to start from; on a resume, checks that they are still the same.

    Raises:
        WrongVersion: the service serves another version by now.
        ValueError: the settings are not those the round began with, or the store is not the service's.
    """
    serving = set(context.workers.versions().values())
    file = context.folder / "start.json"
    if not file.exists():
        write_json(file, {"version": _active(context.store), "settings": _deciding(context.settings)})
    _check_settings(context, read_json(file)["settings"])
    _check_version(context, serving)


def _active(store: VersionStore) -> str:
    """The version that all replicas should serve: one that did not follow a promotion may serve an older one."""
    active = store.active()
    if active is None:
        raise ValueError(f"no version of {store.root} serves; --store must be the running service's store")
    return active.version


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


def _check_version(context: RoundContext, serving: set[str]) -> None:
    made = context.folder / "candidate.json"
    allowed = {context.base, read_json(made)["id"] if made.exists() else context.base}
    if allowed.isdisjoint(serving):
        raise WrongVersion(
            f"round {context.number} started from {context.base}, but the service serves {', '.join(sorted(serving))} "
            f"now; promote {context.base} again to resume, or start a new run"
        )
