"""Whatever holds a file, the loop answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.service.conftest import Listening, World, adapter, picture

HOLD = """
import filelock, sys
with filelock.FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def lock_is_held(listening: Listening) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the lock of the adapters' names."""
    command = [sys.executable, "-c", HOLD, str(listening.world.store.state / "adapters.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.kill()


def test_a_lock_that_another_process_holds_keeps_nobody_else_waiting(listening: Listening, lock_is_held):
    names = [f"adapter-{number}" for number in range(12)]
    for name in names:
        adapter(listening.world.store.root / "adapters" / name)

    def load(name: str) -> int:
        with listening.operators as client:
            return client.post("/internal/adapters", json={"name": name}, timeout=60).status_code

    with ThreadPoolExecutor(len(names)) as callers:
        loads = [callers.submit(load, name) for name in names]
        for url in (listening.url, listening.operator_url):
            assert httpx.get(f"{url}/health/live").status_code == 200
        assert httpx.post(f"{listening.url}/v1/score", files={"image": picture()}).status_code == 200
        assert not any(load.done() for load in loads)
        lock_is_held.kill()
        assert {load.result() for load in loads} == {201}


def test_a_lock_that_stays_held_is_told(listening: Listening, lock_is_held, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("service.versions.store.LOCK_SECONDS", 0.1)
    adapter(listening.world.store.root / "adapters" / "one")
    with listening.operators as client:
        answer = client.post("/internal/adapters", json={"name": "one"})
    assert (answer.status_code, answer.json()["code"]) == (503, "too_busy")
    assert "adapters.lock" in answer.json()["detail"]


def test_the_fixture_catches_what_blocks(world: World, run):
    async def blocked() -> None:
        world.store.active()

    with pytest.raises(Exception, match="Blocking call"):
        run(blocked())
