"""HAProxy before the replicas, run with `haproxy.cfg`, and its own counts."""

from __future__ import annotations

import csv
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from tests.benchmarks.replicas.fleet import Replica
from trainer.serving import free_ports, running, wait_ready

CONFIGURATION = Path(__file__).with_name("haproxy.cfg")
COUNTED = {
    "econ": "connections_failed",
    "eresp": "answers_broken",
    "wretr": "retries",
    "wredis": "redispatches",
    "hrsp_5xx": "answers_5xx",
    "hrsp_4xx": "answers_4xx",
    "chkdown": "taken_out",
}
"""HAProxy's columns that are reported, and what they are called."""


@dataclass(frozen=True)
class Balancer:
    """A running HAProxy: its address and its stats socket."""

    url: str
    stats: Path

    def counts(self) -> dict[str, int]:
        """What HAProxy counted over all servers, and the requests it gave each backend."""
        servers = [row for row in self._rows() if row["svname"].startswith("replica-")]
        found = {name: sum(int(row[column] or 0) for row in servers) for column, name in COUNTED.items()}
        for backend in ("ready", "live"):
            found[f"requests_to_{backend}"] = sum(int(row["stot"]) for row in servers if row["pxname"] == backend)
        return found

    def _rows(self) -> list[dict[str, str]]:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(self.stats))
            asked.sendall(b"show stat\n")
            text = asked.makefile().read()
        return list(csv.DictReader(text.removeprefix("# ").strip().splitlines()))


def installed() -> str | None:
    """Where HAProxy is. Debian keeps it where not everybody looks."""
    return shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def balancer(replicas: Sequence[Replica], log: Path) -> Iterator[Balancer]:
    """Runs HAProxy before the replicas.

    Raises FileNotFoundError if it is not installed; ChildProcessError if it ends before it answers.
    """
    program = installed()
    if program is None:
        raise FileNotFoundError("HAProxy is not installed: apt-get install haproxy")
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    url = f"http://{listen}"
    with TemporaryDirectory() as folder:  # a socket's path must be short
        stats = Path(folder) / "stats"
        addresses = {f"REPLICA_{number}": urlsplit(one.public).netloc for number, one in enumerate(replicas, 1)}
        environment = {"STATS_SOCKET": str(stats), "LISTEN": listen, **addresses}
        with running([program, "-db", "-f", str(CONFIGURATION)], log, environment) as process:
            wait_ready(process, url, log)
            yield Balancer(url, stats)
