"""`evoquality serve` as in a pod: the first process of its namespace, with the store mounted read-only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from service.cli import app as cli
from service.versions.store import VersionStore
from tests.service.conftest import adapter, checkpoint
from tests.service.test_follower import tree, until
from tests.service.test_http import assert_problem
from tests.service.test_operators import BATCH

ALONE = ("unshare", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c")
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


@dataclass
class Replica:
    """A service's process, and its two ports."""

    process: subprocess.Popen[str]
    log: Path
    url: str
    operator_url: str
    key: Path

    def version(self) -> str | None:
        """The version it is ready with; None while it is not."""
        try:
            return httpx.get(f"{self.url}/health/ready").json().get("version")
        except httpx.TransportError:
            assert self.process.poll() is None, self.log.read_text()
            return None

    def operate(self, method: str, path: str, **request) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key.read_text().strip()}"}
        return httpx.request(method, f"{self.operator_url}/internal{path}", headers=headers, **request)

    def terminate(self) -> int:
        pid = self.process.pid
        [service] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(service), signal.SIGTERM)
        return self.process.wait(300)


@pytest.fixture
def store(tmp_path: Path) -> VersionStore:
    """An empty one."""
    (tmp_path / "store").mkdir()
    return VersionStore(tmp_path / "store")


@pytest.fixture
def start(store: VersionStore, tmp_path: Path) -> Iterator[Callable[..., Replica]]:
    """Starts `evoquality serve` with the store mounted read-only."""
    started: list[Replica] = []

    def start(*options: str) -> Replica:
        ports = [free_port(), free_port()]
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        places = ["--store", str(store.root), "--port", str(ports[0]), "--operator-port", str(ports[1])]
        command = [sys.executable, "-m", "tests.service.engineless", "serve", *places, *options]
        log = tmp_path / f"{len(started)}.log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [*ALONE, READ_ONLY, str(store.root), *command],
                stderr=stream,
                text=True,
                env={**os.environ, "COLUMNS": "200"},
            )
        started.append(Replica(process, log, urls[0], urls[1], tmp_path / "state" / "operator.key"))
        return started[-1]

    yield start
    for replica in started:
        replica.process.kill()
        replica.process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return bound.getsockname()[1]


def begin(store: VersionStore, source: Path) -> str:
    """Imports a first version from outside the replica's own view of the store."""
    done = CliRunner().invoke(cli, ["versions", "import", str(source), "--store", str(store.root)])
    assert done.exit_code == 0
    return store.active().version


def test_a_replica_awaits_the_first_version_follows_the_next_and_writes_nothing(start, store, tmp_path):
    replica = start("--follow", "--state", str(tmp_path / "state"), "--follow-seconds", "0.1",
                    "--follow-spread-seconds", "0.1")  # fmt: skip
    until(lambda: "waiting for `evoquality versions import`" in replica.log.read_text())
    first = begin(store, checkpoint(tmp_path / "a", 1))
    until(lambda: replica.version() == first)
    second = store.add(checkpoint(tmp_path / "b", 2), parent=first, profile="plain", origin="test").id
    path = adapter(store.root / "adapters" / "one")
    store.activate(second)
    before = tree(store.root)
    until(lambda: replica.version() == second)
    assert replica.operate("POST", "/adapters", json={"name": "one"}).status_code == 201
    assert replica.operate("POST", "/rollouts", json={**BATCH, "adapter": "one"}).status_code == 200
    assert replica.operate("DELETE", "/adapters/one").status_code == 204
    assert path.exists()
    measured = {"benchmarks": {"koniq": {"n": 10, "plcc": 0.9, "srcc": 0.9}}}
    recorded = replica.operate("PUT", f"/versions/{second}/benchmarks", json=measured)
    assert_problem(recorded, 409, "read_only_store")
    assert replica.terminate() == 0
    assert tree(store.root) == before
    assert "Traceback" not in replica.log.read_text()


def test_a_replica_that_does_not_follow_says_before_a_swap_that_it_cannot_move_the_pointer(start, store, tmp_path):
    first = begin(store, checkpoint(tmp_path / "a", 1))
    second = store.add(checkpoint(tmp_path / "b", 2), parent=first, profile="plain", origin="test").id
    replica = start("--state", str(tmp_path / "state"))
    until(lambda: replica.version() == first)
    assert_problem(replica.operate("POST", f"/versions/{second}/promote"), 409, "read_only_store")
    assert (replica.version(), store.active().version) == (first, first)


def test_a_replica_that_waits_ends_at_once(start, tmp_path):
    replica = start("--follow", "--state", str(tmp_path / "state"), "--follow-seconds", "300")
    until(lambda: "waiting for" in replica.log.read_text())
    assert replica.terminate() == 0


def test_without_a_folder_of_its_own_a_replica_does_not_start(start, store):
    replica = start("--follow")
    assert replica.process.wait(300) == 2
    assert f"{store.root} cannot be written: give --state" in replica.log.read_text().replace("\n", "")
