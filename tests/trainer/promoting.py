"""A round at its beginning and its end, against replicas of the service without a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import pytest

from service.engine.protocol import Prompt, Sampling
from service.prompts import PROFILES
from tests.service.conftest import picture
from tests.service.fake_engine import FakeEngine, plain_answer
from tests.trainer.replicas import Replicas
from trainer.files import write_json
from trainer.pool.pool import Pool, PoolImage, content_id
from trainer.progress import Stages
from trainer.promotion.behaviour import Observer
from trainer.settings.evolve import EvolveSettings
from trainer.stages.context import RoundContext
from trainer.stages.start import start
from trainer.training.choices import with_choices
from trainer.training.rollouts import Served


@pytest.fixture
def context(replicas: Replicas, tmp_path: Path) -> Iterator[RoundContext]:
    settings = with_choices(EvolveSettings(pool=tmp_path, run=tmp_path / "run", store=replicas.first.store.root))
    with replicas.workers() as workers:
        yield RoundContext(1, settings, workers, Stages())


@pytest.fixture
def observer(tmp_path: Path) -> Observer:
    """Asks about four pictures of different brightness, of which the brighter won every vote."""
    ids = []
    for brightness in (40, 90, 140, 190):
        data = picture(brightness)
        (tmp_path / content_id(data)).write_bytes(data)
        ids.append(content_id(data))
    labels = dict.fromkeys(combinations(ids, 2), 0.0)
    pool = Pool([PoolImage(image, str(tmp_path / image), image) for image in ids])
    return Observer(pool, [ids], labels, PROFILES["plain"], samples=2, seed=0)


@pytest.fixture
def gated(context: RoundContext, observer: Observer, replicas: Replicas) -> RoundContext:
    """A round whose candidate, the store's second version, has passed the gate."""
    start(context)
    seen = observer.observe(Served(context.base), context.workers)
    write_json(context.folder / "gate.json", {"passed": True, "reasons": [], "after": asdict(seen)})
    write_json(context.folder / "candidate.json", {"id": replicas.first.second})
    return context


def changed(context: RoundContext, **settings: object) -> RoundContext:
    return RoundContext(1, context.settings.model_copy(update=settings), context.workers, context.stages)


def answer_as(replicas: Replicas, text: str, number: int) -> None:
    """Replica `number` gives that one answer for scores with the second version's weights."""
    engine: FakeEngine = replicas.worlds[number].engine

    def answer(prompt: Prompt, sampling: Sampling, index: int) -> str:
        damaged = engine.version == replicas.first.second and prompt.task == "score"
        return text if damaged else plain_answer(prompt, sampling, index)

    engine.answer = answer


def serving(replicas: Replicas) -> list[str]:
    return [world.service.swap_lock.version.id for world in replicas.worlds]
