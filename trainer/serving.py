"""A service of one's own, started for a while: `evoquality serve` as a process that ends with the block."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx

from service.client import Client, ServiceError

_LAST_WORDS = 12
_SECONDS_TO_END = 90


@contextmanager
def serving(store: Path, log: Path, *flags: str) -> Iterator[tuple[str, str]]:
    """Serves a store on free ports of this machine. Yields the public and the operators' address once it answers.

    Raises ChildProcessError, with the service's last words, if it ends before that.
    """
    ports = _free_ports(2)
    command = [
        str(Path(sys.executable).with_name("evoquality")), "serve", "--store", str(store), "--host", "127.0.0.1",
        "--port", str(ports[0]), "--operator-host", "127.0.0.1", "--operator-port", str(ports[1]), *flags,
    ]  # fmt: skip
    public, operator = (f"http://127.0.0.1:{port}" for port in ports)
    with running(command, log) as process:
        _wait(process, public, log)
        yield public, operator


@contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended with the block; what it says goes to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], public: str, log: Path) -> None:
    """For as long as the process lives: a checkpoint may have to be downloaded first."""
    with Client(public) as client:
        while process.poll() is None:
            with suppress(httpx.TransportError, ServiceError):
                client.wait_ready(1)
                return
    words = "\n".join(log.read_text(errors="replace").strip().splitlines()[-_LAST_WORDS:])
    raise ChildProcessError(f"the service ended with exit code {process.returncode} before it answered:\n{words}")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [taken.getsockname()[1] for taken in sockets]
