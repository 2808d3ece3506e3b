"""One request gives one answer, within limits: alone, in a crowd, after a restart, in float32 and bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from evoquality.contract import ScoreOptions
from tests.engine.checkpoints import perturbed
from tests.engine.conftest import add
from tests.engine.pictures import pictures
from tests.engine.running import Running, running

pytestmark = pytest.mark.engine

FLOAT32, BFLOAT16 = 1e-5, 0.05
"""The largest distance of two answers to the same request, on the scale of scores from 1 to 5."""
ALONE, CROWD = 6, 64

NO_CACHE = {"EVOQUALITY_CACHE_ENTRIES": "0"}


def test_in_float32_an_expected_score_is_the_same_alone_and_among_64_others(service: Running, first: str, second: str):
    crowd = pictures(CROWD, seed=9)
    alone = _one_by_one(service, crowd[:ALONE])
    for version in (second, first):  # empties every cache
        service.operators.promote(version)
    assert _at_once(service, crowd)[:ALONE] == pytest.approx(alone, abs=FLOAT32)


def test_in_float32_answers_are_the_same_after_a_restart(
    service: Running, first: str, checkpoint: Path, environment: dict[str, str], tmp_path: Path
):
    images = pictures(ALONE, seed=10)
    seeded = ScoreOptions(samples=8, seed=3)
    before = _one_by_one(service, images), [service.public.score(image, seeded) for image in images]
    with _anew(checkpoint, {**environment, **NO_CACHE}, tmp_path) as restarted:
        assert restarted.active == first
        assert _one_by_one(restarted, images) == pytest.approx(before[0], abs=FLOAT32)
        assert [restarted.public.score(image, seeded) for image in images] == before[1]


def test_in_bfloat16_an_expected_score_varies_a_little_with_the_crowd(
    checkpoint: Path, environment: dict[str, str], tmp_path: Path
):
    crowd = pictures(CROWD, seed=9)
    with _anew(checkpoint, {**environment, **NO_CACHE, "EVOQUALITY_DTYPE": "bfloat16"}, tmp_path) as service:
        first = service.active
        among = _at_once(service, crowd)[:ALONE]
        other = add(service.store, perturbed(service.store.path(first), tmp_path / "other", seed=1), first)
        for version in (other, first):  # empties every cache
            service.operators.promote(version)
        assert _one_by_one(service, crowd[:ALONE]) == pytest.approx(among, abs=BFLOAT16)


def _one_by_one(service: Running, images: Sequence[bytes]) -> list[float | None]:
    return [service.public.score(image).score for image in images]


def _at_once(service: Running, images: Sequence[bytes]) -> list[float | None]:
    with ThreadPoolExecutor(len(images)) as pool:
        return [answer.score for answer in pool.map(service.public.score, images)]


def _anew(checkpoint: Path, env: dict[str, str], folder: Path):
    """A new process over a store in `folder`."""
    return running(folder / "store", folder / "log", {**env, "EVOQUALITY_CHECKPOINT": str(checkpoint)})
