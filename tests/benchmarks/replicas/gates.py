"""When the gates were closed, as the replicas' own logs tell it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from pathlib import Path

from tests.benchmarks.replicas.fleet import Replica
from trainer.files import read_jsonl

_SWAPPED = re.compile(r"swapped to (\S+), gate closed for (\d+) ms")


@dataclass(frozen=True)
class Blackout:
    """A swap to `version`: the gate closed and opened, in seconds since the epoch."""

    replica: str
    version: str
    closed: float
    opened: float

    @property
    def seconds(self) -> float:
        return self.opened - self.closed


def blackouts(replicas: Iterable[Replica]) -> list[Blackout]:
    """All swaps so far."""
    return [blackout for replica in replicas for blackout in _swaps(replica.name, replica.log)]


def _swaps(name: str, log: Path) -> Iterator[Blackout]:
    for line in read_jsonl(log):
        found = _SWAPPED.match(line["message"])
        if found:
            opened = datetime.fromisoformat(line["timestamp"]).timestamp()
            yield Blackout(name, found[1], opened - int(found[2]) / 1000, opened)


def overlapping(found: Iterable[Blackout]) -> int:
    """How many pairs of gates were closed at the same time."""
    return sum(one.closed < other.opened and other.closed < one.opened for one, other in combinations(list(found), 2))
