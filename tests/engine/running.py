"""The real service as a subprocess, spoken to over HTTP."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evoquality import Client
from service.versions.store import VersionStore

LOSES = "TEST_LOSES_VERSION"
"""Names to `careless_service` the version whose files it shall lose."""
SERVE = (str(Path(sys.executable).with_name("evoquality")), "serve")


@dataclass(frozen=True)
class Running:
    """A service that answers, and its store."""

    url: str
    operator_url: str
    key: str
    store: VersionStore
    process: subprocess.Popen[bytes]
    public: Client
    operators: Client

    @property
    def active(self) -> str:
        return self.public.versions().active


@contextmanager
def running(store: Path, log: Path, env: Mapping[str, str], command: Sequence[str] = SERVE) -> Iterator[Running]:
    """Starts `evoquality serve` over a store, waits until it is ready, and ends it with SIGTERM."""
    port, operator_port = _free_ports()
    arguments = ["--store", str(store), "--port", str(port), "--operator-port", str(operator_port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *arguments], env={**os.environ, **env}, stdout=output, stderr=subprocess.STDOUT
        )
    url, operator_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{operator_port}"
    try:
        with Client(url) as public:
            _wait(public, process, log)
            key = (store / "operator.key").read_text().strip()
            with Client(operator_url, key=key) as operators:
                yield Running(url, operator_url, key, VersionStore(store), process, public, operators)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(300)


def _wait(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(60):
        if process.poll() is not None:
            raise RuntimeError(f"the service exited with {process.returncode}:\n{log.read_text()[-4000:]}")
        try:
            client.wait_ready(5)
            return
        except Exception as failure:
            last = failure
    raise last


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]
