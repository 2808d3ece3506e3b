"""How the replicas went over from version to version, and bore one that they cannot load."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from tests.benchmarks.replicas.answers import Answer
from tests.benchmarks.replicas.gates import Blackout, overlapping
from tests.benchmarks.replicas.watch import Event

Kind = Literal["promotion", "rollback"]


@dataclass(frozen=True)
class Change:
    """The pointer was moved to `version` at `moved`, and the next change began at `ended`; seconds since the epoch."""

    kind: Kind
    version: str
    moved: float
    ended: float


@dataclass(frozen=True)
class Unloadable:
    """The pointer named `version`, which cannot be loaded, from `moved` to `returned`; `kept` served all the while.

    `refused`: whether the command for it would not point there. `ended`: when the show did.
    """

    version: str
    kept: str
    refused: bool
    moved: float
    returned: float
    ended: float


def of_change(
    change: Change, events: Iterable[Event], swaps: Iterable[Blackout], answers: Iterable[Answer]
) -> dict[str, Any]:
    """How the replicas went over to a version: seconds since the pointer's move, and their gates."""
    serving = _since(change.moved, change.ended, change.version, events)
    gates = [swap for swap in swaps if swap.version == change.version and change.moved <= swap.opened < change.ended]
    last = change.moved + max(serving.values(), default=0)
    return {
        "kind": change.kind,
        "version": change.version,
        "moved": change.moved,
        "seconds": serving,
        "first_answer_seconds": _first_answers(change, answers),
        "first_seconds": min(serving.values(), default=None),
        "last_seconds": max(serving.values(), default=None),
        "gate_closed_seconds": {gate.replica: gate.seconds for gate in gates},
        "overlapping_gates": overlapping(gates),
        "old_answers_after_all_serve": sum(
            change.version not in answer.versions for answer in answers if last < answer.sent < change.ended
        ),
    }


def of_unloadable(what: Unloadable, events: Iterable[Event], answers: Iterable[Answer]) -> dict[str, Any]:
    """How the replicas bore a version that they cannot load: seconds until each said so, and was ready again."""
    states = [event for event in events if event.what == "state"]
    not_ready = _since(what.moved, what.returned, "not_following", states)
    ready = _since(what.returned, what.ended, "ready", states)
    during = [answer for answer in answers if what.moved <= answer.sent < what.ended]
    none_ready = [
        answer
        for answer in during
        if max(not_ready.values()) <= answer.sent - what.moved and answer.sent < what.returned
    ]
    return {
        "version": what.version,
        "refused_by_the_command": what.refused,
        "not_ready_seconds": not_ready,
        "ready_again_seconds": ready,
        "requests": len(during),
        "requests_with_no_replica_ready": len(none_ready),
        "failed": sum(answer.error is not None for answer in during),
        "by_another_version": sum(answer.versions != [what.kept] for answer in during if not answer.error),
    }


def _since(begin: float, end: float, value: str, events: Iterable[Event]) -> dict[str, float]:
    """When each replica first said `value`, in seconds since `begin`."""
    first: dict[str, float] = {}
    for event in events:
        if begin <= event.time < end and event.value == value:
            first.setdefault(event.replica, event.time - begin)
    return first


def _first_answers(change: Change, answers: Iterable[Answer]) -> dict[str, float]:
    """When each replica's first answer by the version came, in seconds since the pointer's move."""
    first: dict[str, float] = {}
    for answer in answers:
        if change.moved <= answer.received < change.ended and change.version in answer.versions:
            first.setdefault(answer.replica, answer.received - change.moved)
    return first
