"""What a soak reads of the service from outside: its memory, its cgroup, and the stalls of its event loop."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

_CGROUPS = Path("/sys/fs/cgroup")
_PROBE_SECONDS = 0.02
_CALM_SECONDS = 2.0


@dataclass(frozen=True)
class Cgroup:
    """A memory cgroup of either version."""

    folder: Path

    def within(self) -> list[str]:
        """A command to run another one in it."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs")]

    def held_mib(self) -> float:
        """Memory of its processes, shared memory included, the cache of files left out."""
        counts = self._counts("memory.stat")
        names = ("total_rss", "total_shmem") if "total_rss" in counts else ("anon", "shmem")
        return sum(counts[name] for name in names) / 2**20

    def kills(self) -> int:
        """Processes that were ended for want of memory."""
        v1 = (self.folder / "memory.oom_control").exists()
        return self._counts("memory.oom_control" if v1 else "memory.events")["oom_kill"]

    def _counts(self, name: str) -> dict[str, int]:
        rows = (line.split() for line in (self.folder / name).read_text().splitlines())
        return {key: int(value) for key, value in rows}


@contextlib.contextmanager
def confined(limit: int) -> Iterator[Cgroup | None]:
    """A memory cgroup of `limit` bytes for the block; None where this user may not make one."""
    made = next(filter(None, (_made(parent, limit) for parent in _parents())), None)
    try:
        yield made and Cgroup(made)
    finally:
        if made:
            _remove(made)


def _parents() -> Iterator[Path]:
    """Where one may be made: below this process's own cgroup (version 1), or above it (2), which forbids that."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            yield from (_CGROUPS / "memory" / path.lstrip("/"), _CGROUPS / "memory")
        elif not controllers:
            own = _CGROUPS / path.lstrip("/")
            yield from (each for each in (own, *own.parents) if each.is_relative_to(_CGROUPS))


def _made(parent: Path, limit: int) -> Path | None:
    folder = parent / f"evoquality-soak-{os.getpid()}"
    with contextlib.suppress(OSError):
        folder.mkdir()
        for name in ("memory.limit_in_bytes", "memory.max"):
            if (folder / name).exists():
                (folder / name).write_text(str(limit))
                return folder
    _remove(folder)
    return None


def _remove(folder: Path) -> None:
    for _ in range(50):
        with contextlib.suppress(OSError):
            folder.rmdir()
        if not folder.exists():
            return
        time.sleep(0.1)


def resident_mib(process: int) -> float:
    """The memory of a process."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def wait_until_calm(operators: str) -> None:
    """Waits until no request runs, and what they left has had its time to end."""
    while not re.search(r"^iqa_in_flight 0\.0$", httpx.get(f"{operators}/metrics").text, re.MULTILINE):
        time.sleep(_CALM_SECONDS)
    time.sleep(_CALM_SECONDS)


def engine_of(process: int) -> int:
    """The engine's process below the service's, by its title, which the kernel cuts. Raises LookupError."""
    children = Path(f"/proc/{process}/task").glob("*/children")
    for child in (int(number) for file in children for number in file.read_text().split()):
        if "EngineCor" in Path(f"/proc/{child}/comm").read_text():
            return child
    raise LookupError("the service has no engine")


@dataclass(frozen=True)
class Stall:
    """The longest answer of the liveness route, in ms, and that without the wait for a processor."""

    whole: float = 0.0
    own: float = 0.0


def longest_stall(url: str, process: int, seconds: float) -> Stall:
    """Asks the liveness route over one connection without pause, which the event loop answers in its turn.

    What the loop's thread, or this one, waited for a processor meanwhile is the machine's doing: the kernel counts it.
    """
    address = urlsplit(url)
    request = f"GET /health/live HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
    longest, until = Stall(), time.monotonic() + seconds
    with socket.create_connection((address.hostname, address.port)) as connection:
        while (begun := time.monotonic()) < until:
            waited = _waited(process) + _waited(os.getpid())
            connection.sendall(request)
            if not connection.recv(65536):
                raise ConnectionError("the service closed the probe's connection")
            whole = (time.monotonic() - begun) * 1000
            own = whole - (_waited(process) + _waited(os.getpid()) - waited)
            longest = Stall(max(longest.whole, whole), max(longest.own, own))
            time.sleep(_PROBE_SECONDS)
    return longest


def _waited(process: int) -> float:
    """Milliseconds for which the first thread of a process was ready to run and had no processor."""
    file = Path(f"/proc/{process}/task/{process}/schedstat")
    return int(file.read_text().split()[1]) / 1e6 if file.exists() else 0.0
