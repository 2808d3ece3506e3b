"""The parts of the scenario: a version store, three `evoquality serve --follow` on it, and HAProxy in front."""

from __future__ import annotations

import csv
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from service.versions.store import VersionStore
from tests.engine.checkpoints import perturbed
from trainer.serving import free_ports, running, starting, wait_ready

NAMES = ("replica-1", "replica-2", "replica-3")
"""Names used in `haproxy.cfg`."""
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
"""HAProxy's statistics columns -> names in the report."""
CHECKPOINT = Path("trainer/demo/checkpoint")
_NOISE = 0.05
"""Standard deviation of the noise relative to the weights': large enough that every answer changes."""
_EVOQUALITY = str(Path(sys.executable).with_name("evoquality"))


@dataclass(frozen=True)
class Replica:
    """One process: its public and operators' addresses and its log."""

    name: str
    public: str
    operator: str
    log: Path


@contextmanager
def fleet(store: Path, folder: Path, follow_seconds: float, spread_seconds: float) -> Iterator[list[Replica]]:
    """Starts the replicas in parallel, each with its own state folder and log. The store is read-only for them.

    Raises ChildProcessError, with the end of the log, if a replica ends before it is ready.
    """
    flags = (
        "--follow",
        f"--follow-seconds={follow_seconds}",
        f"--follow-spread-seconds={spread_seconds}",
        "--log-format=json",
        "--cache-entries=0",
    )
    within = read_only(store)
    with ExitStack() as alive:
        services = [
            alive.enter_context(
                starting(store, folder / f"{name}.log", *flags, "--state", str(folder / "state" / name), within=within)
            )
            for name in NAMES
        ]
        for service in services:
            service.wait()
        yield [
            Replica(name, service.public, service.operator, service.log)
            for name, service in zip(NAMES, services, strict=True)
        ]


def read_only(folder: Path) -> list[str]:
    """Command prefix that runs a program with `folder` mounted read-only; empty if this user may not mount.

    The mount exists only in that process's namespace.
    """
    mounted = ["unshare", "--mount", "sh", "-c", 'mount --bind -o ro "$0" "$0" && exec "$@"', str(folder.resolve())]
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return []
    return mounted if subprocess.run([*mounted, "true"], capture_output=True, check=False).returncode == 0 else []


@dataclass(frozen=True)
class Balancer:
    """A running HAProxy: its address and its statistics socket."""

    url: str
    stats: Path

    def counts(self) -> dict[str, int]:
        """HAProxy's counters summed over all servers, and the number of requests per backend."""
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
    """Path of the haproxy program, or None. Debian installs it in /usr/sbin, which is not on every PATH."""
    return shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def balancer(replicas: Sequence[Replica], log: Path) -> Iterator[Balancer]:
    """Runs HAProxy in front of the replicas.

    Raises FileNotFoundError if it is not installed; ChildProcessError if it ends before it is ready.
    """
    program = installed()
    if program is None:
        raise FileNotFoundError("HAProxy is not installed: apt-get install haproxy")
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    url = f"http://{listen}"
    with TemporaryDirectory() as folder:  # Unix socket paths are limited to 108 bytes
        stats = Path(folder) / "stats"
        addresses = {f"REPLICA_{number}": urlsplit(one.public).netloc for number, one in enumerate(replicas, 1)}
        environment = {"STATS_SOCKET": str(stats), "LISTEN": listen, **addresses}
        with running([program, "-db", "-f", str(CONFIGURATION)], log, environment) as process:
            wait_ready(process, url, log)
            yield Balancer(url, stats)


def new_store(folder: Path) -> VersionStore:
    """A store with the embedded checkpoint as the active version."""
    _versions("import", str(CHECKPOINT), "--store", str(folder))
    return VersionStore(folder)


def add_version(store: VersionStore, seed: int) -> str:
    """Adds the embedded weights with noise: a version whose answers differ but remain readable. Returns its id."""
    with TemporaryDirectory() as folder:
        source = perturbed(CHECKPOINT, Path(folder) / "checkpoint", seed, _NOISE)
        return store.add(source, parent=active_version(store), profile="plain", origin=f"noise {seed}").id


def damage_weights(store: VersionStore, version: str) -> None:
    """Flips one bit of a version's weights, as a faulty disk might."""
    with (store.path(version) / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))


def promote(store: VersionStore, version: str) -> float:
    """Promotes with `evoquality versions`. Returns the time of the pointer's move, in seconds since the epoch.

    Raises CalledProcessError if the command refuses the version.
    """
    _versions("promote", version, "--store", str(store.root))
    return moved_at(store)


def rollback(store: VersionStore) -> float:
    """Like `promote`, to the previous version."""
    _versions("rollback", "--store", str(store.root))
    return moved_at(store)


def refuses(store: VersionStore, version: str) -> bool:
    """True if the command refuses to promote a version and leaves the pointer unchanged."""
    before = store.active()
    try:
        promote(store, version)
    except subprocess.CalledProcessError:
        return store.active() == before
    return False


def active_version(store: VersionStore) -> str:
    """Id of the version that the pointer names."""
    pointer = store.active()
    assert pointer
    return pointer.version


def moved_at(store: VersionStore) -> float:
    """Time of the pointer's last move, in seconds since the epoch."""
    return (store.root / "ACTIVE").stat().st_mtime


def _versions(*arguments: str) -> None:
    subprocess.run([_EVOQUALITY, "versions", *arguments], check=True, capture_output=True)
