"""What the settings leave open, chosen for the version that a run starts from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from service.versions.preflight import read_headers
from service.versions.store import VersionStore
from trainer.files import read_json
from trainer.settings.evolve import EvolveSettings
from trainer.training.policy import arithmetic

_SMALL = 100_000_000
"""Parameters below which the embedded model's rates hold, which were measured on two million."""
_RATES = {"lora": (1e-3, 1e-5), "full": (1e-4, 3e-7)}
"""By policy: of a small model, and of a large one. The last is the paper's, of 7B; an adapter takes more than ten times
the rate of all weights."""


def with_choices(settings: EvolveSettings) -> EvolveSettings:
    """The settings with their `dtype` and `learning_rate`: as the run began, or else chosen for the version that it
    starts from. Without such a version they are a small model's: what misses it says so."""
    if settings.dtype != "auto" and settings.learning_rate is not None:
        return settings
    chosen = _chosen(settings, starting_weights(settings))
    begun = settings.run / "settings.json"
    kept = {"dtype": "float32", **read_json(begun)} if begun.exists() else {}  # a run's that is older than `auto`
    was = {name: kept[name] for name in chosen if kept.get(name) not in (None, "auto")}
    given = {name: value for name in chosen if (value := getattr(settings, name)) not in (None, "auto")}
    return settings.model_copy(update={**chosen, **was, **given})


def learning_rate(policy: str, parameters: int) -> float:
    """The learning rate for a model of so many parameters."""
    small, large = _RATES[policy]
    return small if parameters < _SMALL else large


def _chosen(settings: EvolveSettings, weights: Path | None) -> dict[str, Any]:
    if weights is None:
        return {"dtype": "float32", "learning_rate": learning_rate(settings.policy, 0)}
    parameters = sum(math.prod(tensor.shape) for tensor in read_headers(weights).values())
    return {"dtype": arithmetic(settings, weights), "learning_rate": learning_rate(settings.policy, parameters)}


def starting_weights(settings: EvolveSettings) -> Path | None:
    """The directory of the version that the run starts from; None without such a version."""
    store = VersionStore(settings.store)
    active = store.active()
    version = settings.base or (active.version if active else "")
    known = version and (store.path(version) / "config.json").exists()
    return store.path(version) if known else None
