"""Polls each replica's operators' port for its version and readiness, and reads swaps from the replicas' logs."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import combinations
from pathlib import Path
from typing import Literal

import httpx

from tests.benchmarks.replicas.fleet import Replica
from trainer.files import read_jsonl

INTERVAL_SECONDS = 0.1
_VERSION = re.compile(r'^iqa_model_info\{.*version="([^"]+)".*\} 1\.0$', re.MULTILINE)
_TIMEOUT_SECONDS = 30.0

What = Literal["version", "state"]
_SWAPPED = re.compile(r"swapped to (\S+); new requests waited for (\d+) ms")


@dataclass(frozen=True)
class Event:
    """A change seen at `time` (seconds since the epoch). `value`: a version's id, `ready` or an error code."""

    time: float
    replica: str
    what: What
    value: str


@dataclass
class Watch:
    """All changes seen so far, in order of time."""

    replicas: Sequence[Replica]
    events: list[Event] = field(default_factory=list)

    def now(self, what: What) -> dict[str, str]:
        """Replica -> its latest value."""
        return {event.replica: event.value for event in self.events if event.what == what}

    def wait(self, what: What, value: str, seconds: float) -> bool:
        """Waits until all replicas report `value`. Returns False after `seconds`."""
        until = time.monotonic() + seconds
        wanted = {replica.name: value for replica in self.replicas}
        while self.now(what) != wanted:
            if time.monotonic() > until:
                return False
            time.sleep(INTERVAL_SECONDS)
        return True


@contextmanager
def watching(replicas: Sequence[Replica]) -> Iterator[Watch]:
    """Polls the replicas until the block ends."""
    watch, done = Watch(replicas), threading.Event()
    kinds: dict[What, Callable[[httpx.Client], str]] = {"version": _version, "state": _state}
    threads = [
        threading.Thread(target=_poll, args=(watch, replica, what, read, done))
        for replica in replicas
        for what, read in kinds.items()
    ]
    for thread in threads:
        thread.start()
    try:
        yield watch
    finally:
        done.set()
        for thread in threads:
            thread.join()


def _poll(
    watch: Watch, replica: Replica, what: What, read: Callable[[httpx.Client], str], done: threading.Event
) -> None:
    last = None
    with httpx.Client(base_url=replica.operator, timeout=_TIMEOUT_SECONDS) as client:
        while not done.wait(INTERVAL_SECONDS):
            value = read(client)
            if value != last:
                watch.events.append(Event(time.time(), replica.name, what, value))
                last = value


def _version(client: httpx.Client) -> str:
    found = _VERSION.search(_text(client, "/metrics"))
    return found[1] if found else "none"


def _state(client: httpx.Client) -> str:
    try:
        response = client.get("/health/ready")
    except httpx.TransportError:
        return "unreachable"
    return "ready" if response.is_success else str(response.json()["code"])


def _text(client: httpx.Client, path: str) -> str:
    try:
        return client.get(path).text
    except httpx.TransportError:
        return ""


@dataclass(frozen=True)
class Blackout:
    """A swap to `version`: the times at which requests were held and released, in seconds since the epoch."""

    replica: str
    version: str
    closed: float
    opened: float

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.opened - self.closed


def blackouts(replicas: Iterable[Replica]) -> list[Blackout]:
    """All swaps in the replicas' logs so far."""
    return [blackout for replica in replicas for blackout in _swaps(replica.name, replica.log)]


def _swaps(name: str, log: Path) -> Iterator[Blackout]:
    for line in read_jsonl(log):
        found = _SWAPPED.match(line["message"])
        if found:
            opened = datetime.fromisoformat(line["timestamp"]).timestamp()
            yield Blackout(name, found[1], opened - int(found[2]) / 1000, opened)


def overlapping(found: Iterable[Blackout]) -> int:
    """Number of pairs of blackouts that overlap in time."""
    return sum(one.closed < other.opened and other.closed < one.opened for one, other in combinations(list(found), 2))
