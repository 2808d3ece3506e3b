"""Damaged weights never answer, whatever made the real engine load them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from evoquality import ServiceError
from tests.engine.checkpoints import perturbed
from tests.engine.conftest import add
from tests.engine.pictures import ask_greedily, tokens
from tests.engine.running import Running, running

pytestmark = pytest.mark.engine


@pytest.fixture
def alone(checkpoint: Path, environment: dict[str, str], tmp_path: Path) -> Iterator[Running]:
    """A service of its own, which a test may end."""
    env = {**environment, "EVOQUALITY_CHECKPOINT": str(checkpoint)}
    with running(tmp_path / "store", tmp_path / "log", env) as started:
        yield started


def alter(path: Path) -> None:
    """Changes the last weight."""
    with (path / "model.safetensors").open("r+b") as stream:
        stream.seek(-2, os.SEEK_END)
        stream.write(b"\x80\x41")


def test_answers_are_recorded_and_compared_over_swaps_and_restarts(
    service: Running, first: str, second: str, images: list[bytes]
):
    for version in (second, first, second):
        service.operators.promote(version)
    records = [json.loads((service.store.root / "canaries" / f"{one}.json").read_text()) for one in (first, second)]
    assert all(record["arithmetic"].startswith("float32 on ") for record in records)
    assert records[0]["answers"] != records[1]["answers"]


def test_a_version_that_answers_otherwise_than_at_first_is_refused(
    service: Running, first: str, second: str, images: list[bytes]
):
    service.operators.promote(second)
    service.operators.promote(first)
    before = tokens(ask_greedily(service, images))
    third = add(service.store, perturbed(service.store.path(first), service.store.root / "source", seed=4), first)
    shutil.rmtree(service.store.root / "source")
    shutil.copy(
        service.store.root / "canaries" / f"{second}.json", service.store.root / "canaries" / f"{third}.json"
    )  # as if it had been loaded wrongly
    with pytest.raises(ServiceError, match="changed_answers"):
        service.operators.promote(third)
    assert service.active == first
    assert tokens(ask_greedily(service, images)) == before


def test_altered_files_of_the_serving_version_are_never_loaded(alone: Running, images: list[bytes], tmp_path: Path):
    first = alone.active
    before = tokens(ask_greedily(alone, images))
    gibberish = add(alone.store, perturbed(alone.store.path(first), tmp_path / "bad", seed=9, scale=20), first)
    alter(alone.store.path(first))
    with pytest.raises(ServiceError, match=r"no_way_back: .*model\.safetensors was altered"):
        alone.operators.promote(gibberish)
    assert tokens(ask_greedily(alone, images)) == before
    alone.process.send_signal(signal.SIGTERM)
    assert alone.process.wait(60) == 0
    started = running(alone.store.root, tmp_path / "again", {})
    with pytest.raises(RuntimeError, match=r"model\.safetensors was altered"), started:
        pass
