"""Evaluates the logs: failures, answers of mixed versions, latencies, and how each replica followed each change."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from tests.benchmarks.replicas.traffic import Answer
from tests.benchmarks.replicas.watch import Blackout, Event, overlapping

TOLERANCE = 1e-5
"""Largest float32 deviation of a version's answer to a question from its median, whatever the batch size."""

Meant = Mapping[str, Mapping[str, float]]
"""Version -> question -> median answer."""
Kind = Literal["promotion", "rollback"]
HEADING = ("change", "first replica serves it", "last", "blackouts", "overlapping")


def of_traffic(answers: Sequence[Answer]) -> dict[str, Any]:
    """Counts failures and answers of mixed versions, latencies, and answers by replica and version."""
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
        "distinguishable": distinguishable(meant),
        "p50_ms": 1000 * seconds[len(seconds) // 2],
        "p99_ms": 1000 * seconds[int(len(seconds) * 0.99)],
        "largest_ms": 1000 * seconds[-1],
        "by_replica": {replica: _of(replica, by_replica) for replica in sorted({replica for replica, _ in by_replica})},
    }


def usual(answers: Iterable[Answer]) -> Meant:
    """Median of each version's answers to each question, over all replicas."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for answer in answers:
        for question, value in answer.values.items():
            values[answer.versions[0]][question].append(value)
    return {version: {name: median(found) for name, found in of.items()} for version, of in values.items()}


def is_mixed(answer: Answer, meant: Meant) -> bool:
    """True if an answer names several versions, or holds a value that its version does not give."""
    of_version = meant[answer.versions[0]]
    return len(answer.versions) > 1 or any(
        abs(value - of_version[question]) > TOLERANCE for question, value in answer.values.items()
    )


def distinguishable(meant: Meant) -> float:
    """Share of questions, over all pairs of versions, to which the two versions give different answers."""
    apart = [
        abs(one[question] - other[question]) > 2 * TOLERANCE
        for one, other in combinations(meant.values(), 2)
        for question in one.keys() & other.keys()
    ]
    return sum(apart) / len(apart) if apart else 0.0


def _of(replica: str, counts: Mapping[tuple[str, str], int]) -> dict[str, int]:
    return {version: count for (name, version), count in counts.items() if name == replica}


@dataclass(frozen=True)
class Change:
    """The pointer moved to `version` at `moved`; the next change began at `ended` (seconds since the epoch)."""

    kind: Kind
    version: str
    moved: float
    ended: float


@dataclass(frozen=True)
class Unloadable:
    """The pointer named `version`, which cannot be loaded, from `moved` to `returned`; `kept` kept serving.

    `refused`: the command refused to promote it. `ended`: end of the scenario.
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
    """The replicas' behaviour at one change: seconds since the pointer's move, and their blackouts."""
    serving = _since(change.moved, change.ended, change.version, events)
    blackouts = [
        swap for swap in swaps if swap.version == change.version and change.moved <= swap.opened < change.ended
    ]
    last = change.moved + max(serving.values(), default=0)
    return {
        "kind": change.kind,
        "version": change.version,
        "moved": change.moved,
        "seconds": serving,
        "first_answer_seconds": _first_answers(change, answers),
        "first_seconds": min(serving.values(), default=None),
        "last_seconds": max(serving.values(), default=None),
        "blackout_seconds": {swap.replica: swap.seconds for swap in blackouts},
        "overlapping_blackouts": overlapping(blackouts),
        "old_answers_after_all_serve": sum(
            change.version not in answer.versions for answer in answers if last < answer.sent < change.ended
        ),
    }


def of_unloadable(what: Unloadable, events: Iterable[Event], answers: Iterable[Answer]) -> dict[str, Any]:
    """Seconds until each replica reported not ready, and was ready again; requests meanwhile."""
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
    """Replica -> time at which it first reported `value`, in seconds since `begin`."""
    first: dict[str, float] = {}
    for event in events:
        if begin <= event.time < end and event.value == value:
            first.setdefault(event.replica, event.time - begin)
    return first


def _first_answers(change: Change, answers: Iterable[Answer]) -> dict[str, float]:
    """Replica -> its first answer by the version, in seconds since the pointer's move."""
    first: dict[str, float] = {}
    for answer in answers:
        if change.moved <= answer.received < change.ended and change.version in answer.versions:
            first.setdefault(answer.replica, answer.received - change.moved)
    return first


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """Text cells, one row per change: seconds since the pointer's move, and the replicas' blackouts."""
    return [[f"{number}. {change['kind']}", *_change(change)] for number, change in enumerate(figures["changes"], 1)]


def _change(change: Mapping[str, Any]) -> list[str]:
    closed = change["blackout_seconds"].values()
    return [
        f"{change['first_seconds']:.1f} s",
        f"{change['last_seconds']:.1f} s",
        " / ".join(f"{seconds:.2f}" for seconds in sorted(closed)) + " s",
        str(change["overlapping_blackouts"]),
    ]


def sentences(figures: Mapping[str, Any]) -> list[str]:
    """Summary of the traffic, the balancer's counters and the damaged version."""
    seen, counted, damaged = figures["traffic"], figures["balancer"], figures["unloadable"]
    return [
        f"traffic: {seen['requests']} requests, {seen['failed']} failed, {seen['mixed']} of mixed versions; "
        f"p50 {seen['p50_ms']:.0f} ms, p99 {seen['p99_ms']:.0f} ms, largest {seen['largest_ms']:.0f} ms",
        "HAProxy: " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counted.items()),
        f"damaged version: refused by the command: {'yes' if damaged['refused_by_the_command'] else 'no'}; activated "
        f"directly, replicas not ready after {_seconds(damaged['not_ready_seconds'])}, ready again after "
        f"{_seconds(damaged['ready_again_seconds'])}; {damaged['requests_with_no_replica_ready']} requests while none "
        f"was ready, {damaged['failed']} failed",
    ]


def show(figures: Mapping[str, Any], console: Console) -> None:
    """Prints table and summary."""
    table = Table(*HEADING)
    for row in rows(figures):
        table.add_row(*row)
    console.print(table)
    for sentence in sentences(figures):
        console.print(sentence, highlight=False, soft_wrap=True)


def _seconds(found: Mapping[str, float]) -> str:
    return " / ".join(f"{seconds:.1f}" for seconds in sorted(found.values())) + " s"
