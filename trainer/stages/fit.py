"""The fit of training to model and device, before the votes: what is computed is the model's own, `self_check.json`,
and goes into the device's memory, `memory.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import ceil
from typing import Any

from PIL import Image

from trainer.files import built, read_json, write_json
from trainer.pool.pool import Pool
from trainer.settings.evolve import EvolveSettings
from trainer.stages.context import RoundContext
from trainer.training import distributed, learner
from trainer.training.fit import MEASURING, Fit, Load, fit
from trainer.training.learner import Learner
from trainer.voting.groups import Group
from trainer.workers.sizing import answer_tokens


def fit_memory(context: RoundContext, images: Pool, groups: Sequence[Group]) -> None:
    """Measures the first group and says what was chosen, unless that was done for the same device and settings, or
    training is over.

    Raises:
        UnsupportedModel: see `check_policy`.
        UserError: not even one answer fits.
    """
    file = context.folder / "memory.json"
    if (context.folder / "candidate.json").exists() or _read(context):
        return
    with context.stage("memory"):
        found = _measured(context, [images.open(image) for image in groups[0]])
    distributed.release()
    write_json(file, {**asdict(found), "asked": _asked(context.settings)})
    context.stages.say(f"round {context.number}: {found}")


def check_policy(context: RoundContext, policy: Learner, picture: Image.Image) -> None:
    """Chooses how a policy that was just loaded computes log-probabilities; says so when that is new.

    Raises:
        UnsupportedModel: no way gives the model's own.
    """
    found, file = policy.self_check(picture), context.folder / "self_check.json"
    if not file.exists() or read_json(file)["way"] != found.way:
        context.stages.say(f"round {context.number}: {found}")
    write_json(file, found.as_dict())


def fitted(context: RoundContext) -> EvolveSettings:
    """The settings with what was chosen."""
    found = _read(context)
    names = ("tokens_per_pass", "gradient_checkpointing")
    return context.settings.model_copy(update={name: getattr(found, name) for name in names} if found else {})


def _measured(context: RoundContext, pictures: list[Image.Image]) -> Fit:
    s, engine = context.settings, context.workers.info()
    largest = sorted(pictures, key=lambda picture: -picture.width * picture.height)
    mine = largest[: ceil(len(largest) / distributed.world_size())]
    load = Load(mine, s.samples, answer_tokens(engine, "score", s.max_answer_tokens))
    version, settings = context.store.path(context.base), s.model_copy(update=MEASURING)
    with distributed.built(learner.begin, version, context.profile, settings, context.seed, engine) as measured:
        check_policy(context, measured, pictures[0])  # what is measured depends on how it computes
        return fit(measured, load, s)


def _read(context: RoundContext) -> Fit | None:
    """What was chosen for this device and these settings."""
    file = context.folder / "memory.json"
    row = read_json(file) if file.exists() else {}
    return built(Fit, row) if row.get("asked") == _asked(context.settings) else None


def _asked(settings: EvolveSettings) -> dict[str, Any]:
    names = ("device", "tokens_per_pass", "gradient_checkpointing")
    return {"processes": distributed.world_size(), **{name: getattr(settings, name) for name in names}}
