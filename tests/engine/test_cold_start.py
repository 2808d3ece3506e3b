"""Only a second service can show these: cold answers, forgotten caches, lost weights, and a dying engine.

The tests run in this order on one service, which begins with the second version and does not survive the last.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from evoquality import ServiceError
from evoquality.contract import RolloutResponse
from service.versions.store import VersionStore
from tests.engine.checkpoints import perturbed
from tests.engine.conftest import add
from tests.engine.pictures import ask_greedily, logprobs, tokens
from tests.engine.running import LOSES, Running, running

pytestmark = pytest.mark.engine

COMMAND = (sys.executable, "-m", "tests.engine.careless_service", "serve")


@pytest.fixture(scope="module")
def lost(service: Running, first: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A version that passes every check and cannot be loaded."""
    source = perturbed(service.store.path(first), tmp_path_factory.mktemp("lost") / "checkpoint", seed=3)
    return add(service.store, source, first)


@pytest.fixture(scope="module")
def careless(
    service: Running, second: str, lost: str, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """Another service on a copy of the store, started cold on the second version."""
    folder = tmp_path_factory.mktemp("careless")
    shutil.copytree(service.store.root, folder / "store")
    VersionStore(folder / "store").activate(second)
    with running(folder / "store", folder / "log", {**environment, LOSES: lost}, COMMAND) as started:
        yield started


def test_swapped_answers_equal_cold_ones_but_only_if_the_caches_are_emptied(
    service: Running, careless: Running, first: str, second: str, images: list[bytes]
):
    original = ask_greedily(service, images)
    service.operators.promote(second)
    swapped, cold = ask_greedily(service, images), ask_greedily(careless, images)
    with pytest.raises(ServiceError, match="changed_answers"):
        careless.operators.promote(first)  # the canaries notice what the caches kept
    (careless.store.root / "canaries" / f"{first}.json").unlink()
    careless.operators.promote(first)
    stale = ask_greedily(careless, images)
    assert _same(swapped, cold)
    assert not _same(stale, original)


def test_weights_lost_while_loading_are_refused_and_the_old_ones_restored(
    careless: Running, lost: str, images: list[bytes]
):
    before, active = ask_greedily(careless, images), careless.active
    with pytest.raises(ServiceError) as refusal:
        careless.operators.promote(lost)
    assert refusal.value.problem.code == "version_refused"
    assert "load_failed" in refusal.value.problem.detail
    assert str(careless.store.root) not in refusal.value.problem.detail
    assert careless.active == active
    assert _same(ask_greedily(careless, images), before)


def test_when_the_engine_dies_callers_are_told_and_the_process_exits(careless: Running, images: list[bytes]):
    for child in _children(careless.process.pid):
        os.kill(child, signal.SIGKILL)
    answers = []
    while careless.process.poll() is None:
        try:
            answers.append(httpx.post(f"{careless.url}/v1/score", files={"image": images[0]}, timeout=30))
        except httpx.TransportError:
            continue
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["code"] for answer in answers} == {"engine_dead"}
    assert careless.process.returncode == 1


def _same(answers: RolloutResponse, others: RolloutResponse) -> bool:
    """Token for token, from the same distribution."""
    return tokens(answers) == tokens(others) and logprobs(answers) == pytest.approx(logprobs(others), abs=1e-4)


def _children(parent: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
