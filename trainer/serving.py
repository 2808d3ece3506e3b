"""A temporary service: `evoquality serve` as a process that ends with a block."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from evoquality import Client, ServiceError
from trainer.errors import UserError

_LAST_WORDS = 12
_SECONDS_TO_END = 90


@dataclass(frozen=True)
class Starting:
    """A service that may not answer yet: its process, its two addresses and its log."""

    process: subprocess.Popen[bytes]
    public: str
    operator: str
    log: Path

    def wait(self) -> None:
        """Waits until it answers. Raises UserError, with the end of its log, if it ends before that."""
        wait_ready(self.process, self.public, self.log)


@contextmanager
def serving(store: Path, log: Path, *flags: str) -> Iterator[tuple[str, str]]:
    """Serves a store on free ports of this machine. Yields the public and the operators' address once it answers.

    Raises UserError, with the end of its log, if it ends before that.
    """
    with starting(store, log, *flags) as service:
        service.wait()
        yield service.public, service.operator


@contextmanager
def starting(store: Path, log: Path, *flags: str, within: Sequence[str] = ()) -> Iterator[Starting]:
    """As `serving`, without waiting for an answer, so that several start side by side. `within` is a command to run it
    in."""
    ports = free_ports(2)
    command = [
        *(*within, str(Path(sys.executable).with_name("evoquality")), "serve", f"--store={store}"),
        *("--host=127.0.0.1", f"--port={ports[0]}", "--operator-host=127.0.0.1", f"--operator-port={ports[1]}"),
        *flags,
    ]
    public, operator = (f"http://127.0.0.1:{port}" for port in ports)
    with running(command, log) as process:
        yield Starting(process, public, operator, log)


@contextmanager
def running(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a process for the block, with its output in the log. `environment` adds to that of this process."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Waits until a service answers at `url`, while its process lives: it may have to download a checkpoint first.

    Raises UserError, with the end of its log, if it ends before that.
    """
    with Client(url) as client:
        while process.poll() is None:
            with suppress(httpx.TransportError, ServiceError):
                client.wait_ready(1)
                return
    words = "\n".join(log.read_text(errors="replace").strip().splitlines()[-_LAST_WORDS:])
    raise UserError(f"the service ended with exit code {process.returncode} before it answered:\n{words}")


def free_ports(count: int) -> list[int]:
    """Free ports of this machine."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [taken.getsockname()[1] for taken in sockets]
