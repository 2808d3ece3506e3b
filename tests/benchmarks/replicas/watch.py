"""What each replica says of itself on its operators' port, read at short intervals: its version and its readiness."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import httpx

from tests.benchmarks.replicas.fleet import Replica

INTERVAL_SECONDS = 0.1
_VERSION = re.compile(r'^iqa_model_info\{.*version="([^"]+)".*\} 1\.0$', re.MULTILINE)
_TIMEOUT_SECONDS = 30.0

What = Literal["version", "state"]


@dataclass(frozen=True)
class Event:
    """From `time` on (seconds since the epoch) a replica said this: a version's id, `ready` or an error's code."""

    time: float
    replica: str
    what: What
    value: str


@dataclass
class Watch:
    """All that was seen so far, changes alone, in the order of time."""

    replicas: Sequence[Replica]
    events: list[Event] = field(default_factory=list)

    def now(self, what: What) -> dict[str, str]:
        """What each replica said last."""
        return {event.replica: event.value for event in self.events if event.what == what}

    def wait(self, what: What, value: str, seconds: float) -> bool:
        """Until all replicas say it. Returns whether they did in time."""
        until = time.monotonic() + seconds
        wanted = {replica.name: value for replica in self.replicas}
        while self.now(what) != wanted:
            if time.monotonic() > until:
                return False
            time.sleep(INTERVAL_SECONDS)
        return True


@contextmanager
def watching(replicas: Sequence[Replica]) -> Iterator[Watch]:
    """Watches the replicas until the block ends."""
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
