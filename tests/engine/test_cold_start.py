"""After a swap the answers are those of a service started cold; without emptying the caches they are not."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from service.contract import RolloutResponse
from tests.engine.pictures import ask_greedily, logprobs, tokens
from tests.engine.running import Running, running

pytestmark = pytest.mark.engine

CARELESS = (sys.executable, "-m", "tests.engine.careless_service", "serve")


def test_swapped_answers_equal_cold_ones_and_only_if_the_caches_are_emptied(
    service: Running,
    first: str,
    second: str,
    images: list[bytes],
    environment: dict[str, str],
    tmp_path: Path,
):
    original = ask_greedily(service, images)
    service.operators.promote(second)
    swapped = ask_greedily(service, images)

    shutil.copytree(service.store.root, tmp_path / "store")
    with running(tmp_path / "store", tmp_path / "log", environment, CARELESS) as careless:
        assert careless.active == second
        cold = ask_greedily(careless, images)
        careless.operators.promote(first)
        stale = ask_greedily(careless, images)

    assert _same(swapped, cold)
    assert not _same(stale, original)


def _same(answers: RolloutResponse, others: RolloutResponse) -> bool:
    """Token for token, from the same distribution."""
    return tokens(answers) == tokens(others) and logprobs(answers) == pytest.approx(logprobs(others), abs=1e-4)
