"""Two services on one store, without `--follow`: each hears of the other, and neither is taken by surprise."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from evoquality import Client, ServiceError
from service.observability import metrics
from service.versions.store import VersionStore
from tests.service.test_follower import until
from trainer.serving import Starting, free_ports, running


@pytest.fixture
def start(store: VersionStore, tmp_path: Path) -> Iterator[Callable[..., Starting]]:
    """Starts services on the store, as processes of their own."""
    with ExitStack() as stack:

        def start(*options: str) -> Starting:
            public, operator = free_ports(2)
            log = tmp_path / f"{public}.log"
            command = [
                *(sys.executable, "-m", "tests.service.engineless", "serve", f"--store={store.root}"),
                *(f"--port={public}", f"--operator-port={operator}", "--follow-seconds=0.05", "--log-format=text"),
                *options,
            ]
            process: subprocess.Popen[bytes] = stack.enter_context(running(command, log))
            service = Starting(process, f"http://127.0.0.1:{public}", f"http://127.0.0.1:{operator}", log)
            service.wait()
            return service

        yield start


def operators(service: Starting, store: VersionStore) -> Client:
    return Client(service.operator, (store.root / "operator.key").read_text())


def serving(service: Starting) -> str:
    with Client(service.public) as client:
        return client.info().version


def behind(service: Starting) -> float:
    lines = httpx.get(f"{service.operator}/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("iqa_behind_seconds"))


def test_the_second_service_warns_at_its_start_and_followers_do_not(start, store):
    alone, second, follower = start(), start(), start("--follow")
    assert "another service without --follow uses the store" not in alone.log.read_text()
    assert "another service without --follow uses the store" in second.log.read_text()
    assert "another service without --follow uses the store" not in follower.log.read_text()


def test_a_service_whose_pointer_was_moved_says_so_and_refuses_what_would_surprise(start, store, versions):
    first, second = versions
    leading, other = start(), start()
    with operators(leading, store) as lead, operators(other, store) as surprised:
        assert lead.promote(second).version == second
        until(lambda: behind(other) > 0)
        until(lambda: f"it names {second}, which does not serve here" in other.log.read_text())
        assert (serving(other), behind(leading)) == (first, 0)
        for move in (surprised.rollback, lambda: surprised.promote(first)):
            with pytest.raises(
                ServiceError, match=rf"pointer: it names {second}, while {first} serves here"
            ) as refused:
                move()
            assert (refused.value.problem.status, refused.value.problem.code) == (409, "not_active")
            assert store.active().version == second
        assert surprised.promote(second).version == second  # it agrees with the pointer again
        until(lambda: behind(other) == 0)
        assert surprised.rollback().version == first
        until(lambda: behind(leading) > 0)
        with pytest.raises(ServiceError, match="Somebody moved the store's pointer"):
            lead.rollback()
    assert store.active().version == first


def test_a_pointer_moved_by_hand_is_noticed_too(listening, monkeypatch):
    world = listening.world
    monkeypatch.setattr(world.settings, "follow_seconds", 0.02)
    world.store.activate(world.second)
    until(lambda: world.service.follower.behind_seconds > 0)
    assert metrics.behind_seconds.collect()[0].samples[0].value > 0
    answer = listening.operators.post("/internal/rollback")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_active")
