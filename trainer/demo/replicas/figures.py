"""What the traffic, the watch and the logs come to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any, Literal

from trainer.demo.replicas.answers import Answer
from trainer.demo.replicas.gates import Blackout, overlapping
from trainer.demo.replicas.watch import Event

TOLERANCE = 1e-5
"""How far a version's expected answers to one question may lie from their median in float32, alone or in a crowd."""

Meant = Mapping[str, Mapping[str, float]]
"""What each version answers to each question."""


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


def of_traffic(answers: Sequence[Answer]) -> dict[str, Any]:
    """What the callers saw: failures, answers of mixed versions, latencies, who answered how often by what."""
    good = [answer for answer in answers if not answer.error]
    meant = usual(good)
    seconds = sorted(answer.received - answer.sent for answer in answers)
    by_replica = Counter((answer.replica, "+".join(answer.versions)) for answer in good)
    return {
        "requests": len(answers),
        "failed": len(answers) - len(good),
        "failures": [answer.error for answer in answers if answer.error][:10],
        "mixed": sum(is_mixed(answer, meant) for answer in good),
        "questions": len({question for values in meant.values() for question in values}),
        "told_apart": told_apart(meant),
        "p50_ms": 1000 * seconds[len(seconds) // 2],
        "p99_ms": 1000 * seconds[int(len(seconds) * 0.99)],
        "largest_ms": 1000 * seconds[-1],
        "by_replica": {replica: _of(replica, by_replica) for replica in sorted({replica for replica, _ in by_replica})},
    }


def usual(answers: Iterable[Answer]) -> Meant:
    """The median of each version's answers to each question, over all replicas."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for answer in answers:
        for question, value in answer.values.items():
            values[answer.versions[0]][question].append(value)
    return {version: {name: median(found) for name, found in of.items()} for version, of in values.items()}


def is_mixed(answer: Answer, meant: Meant) -> bool:
    """Whether an answer names several versions, or a value in it is not its version's."""
    of_version = meant[answer.versions[0]]
    return len(answer.versions) > 1 or any(
        abs(value - of_version[question]) > TOLERANCE for question, value in answer.values.items()
    )


def told_apart(meant: Meant) -> float:
    """The share of questions, over all pairs of versions, by whose answers the two are told apart."""
    apart = [
        abs(one[question] - other[question]) > 2 * TOLERANCE
        for one, other in combinations(meant.values(), 2)
        for question in one.keys() & other.keys()
    ]
    return sum(apart) / len(apart) if apart else 0.0


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


def _of(replica: str, counts: Mapping[tuple[str, str], int]) -> dict[str, int]:
    return {version: count for (name, version), count in counts.items() if name == replica}
