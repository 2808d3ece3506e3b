"""What the callers saw: failures, answers of mixed versions, latencies, and who answered."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import median
from typing import Any

from tests.benchmarks.replicas.answers import Answer

TOLERANCE = 1e-5
"""How far a version's expected answers to one question may lie from their median in float32, alone or in a crowd."""

Meant = Mapping[str, Mapping[str, float]]
"""What each version answers to each question."""


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


def _of(replica: str, counts: Mapping[tuple[str, str], int]) -> dict[str, int]:
    return {version: count for (name, version), count in counts.items() if name == replica}
