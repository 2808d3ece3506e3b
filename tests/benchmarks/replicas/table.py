"""The figures for people: rows of text cells, which the terminal and the README share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

HEADING = ("change", "first replica serves it", "last", "gates closed for", "pairs closed at once")


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """One row a change: seconds since the pointer's move, and the replicas' gates."""
    return [[f"{number}. {change['kind']}", *_change(change)] for number, change in enumerate(figures["changes"], 1)]


def _change(change: Mapping[str, Any]) -> list[str]:
    closed = change["gate_closed_seconds"].values()
    return [
        f"{change['first_seconds']:.1f} s",
        f"{change['last_seconds']:.1f} s",
        " / ".join(f"{seconds:.2f}" for seconds in sorted(closed)) + " s",
        str(change["overlapping_gates"]),
    ]


def sentences(figures: Mapping[str, Any]) -> list[str]:
    """What the traffic, the balancer and the damaged version came to."""
    seen, counted, damaged = figures["traffic"], figures["balancer"], figures["unloadable"]
    return [
        f"traffic: {seen['requests']} requests, {seen['failed']} failed, {seen['mixed']} of mixed versions; "
        f"p50 {seen['p50_ms']:.0f} ms, p99 {seen['p99_ms']:.0f} ms, largest {seen['largest_ms']:.0f} ms",
        "HAProxy: " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counted.items()),
        f"damaged version: the command refused it: {'yes' if damaged['refused_by_the_command'] else 'no'}; pointed "
        f"at by hand, replicas not ready after {_seconds(damaged['not_ready_seconds'])}, ready again after "
        f"{_seconds(damaged['ready_again_seconds'])}; {damaged['requests_with_no_replica_ready']} requests while none "
        f"was ready, {damaged['failed']} failed",
    ]


def show(figures: Mapping[str, Any], console: Console) -> None:
    """Prints them."""
    table = Table(*HEADING)
    for row in rows(figures):
        table.add_row(*row)
    console.print(table)
    for sentence in sentences(figures):
        console.print(sentence, highlight=False, soft_wrap=True)


def _seconds(found: Mapping[str, float]) -> str:
    return " / ".join(f"{seconds:.1f}" for seconds in sorted(found.values())) + " s"
