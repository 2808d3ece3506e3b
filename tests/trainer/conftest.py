"""Replicas to spread work over."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.service.conftest import World, make_world, stocked
from tests.trainer.replicas import Replicas

__all__ = ["make_world", "stocked"]


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for a replica that is gone."""
    monkeypatch.setattr("evoquality.retries._wait", lambda state: 0)
    monkeypatch.setattr("trainer.workers.replica._REST_SECONDS", 0.2)


@pytest.fixture
def replicas(make_world: Callable[..., World], hurry: None) -> Iterator[Replicas]:
    """Two of them."""
    made = Replicas(make_world())
    made.start()
    made.start()
    yield made
    made.stop_all()
