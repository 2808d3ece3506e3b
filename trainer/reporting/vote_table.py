"""The quality of votes in words: title -> figure, for a page's table and a terminal's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NONE = "–"


def cells(figures: Mapping[str, Any]) -> dict[str, str]:
    """Of one round, or of one version on one benchmark. What is not known is a dash."""
    accuracy, cycles, position = (figures.get(part) or {} for part in ("accuracy", "cycles", "position"))
    of_labels, of_majorities = (cycles.get(part) or {} for part in ("labels", "majorities"))
    return {
        "pairs": f"{figures['pairs']:,}",
        "ties": _percent(figures["ties"] / figures["pairs"]),
        "unreadable answers": _percent(figures["unreadable"] / figures["votes"] if figures["votes"] else None),
        "right, a tie counting half": _rate(accuracy.get("label")),
        "right without the tie margin": _rate(accuracy.get("majority")),
        "calibration error": _percent((accuracy.get("calibration") or {}).get("error")),
        "circular triples": _circular(of_labels),
        "circular without the tie margin": _circular(of_majorities),
        "consistence": NONE if cycles.get("consistence") is None else f"{cycles['consistence']:.3f}",
        "for the image shown first": _rate(position.get("shown_first")),
        "orders contradict each other": _rate(position.get("flips")),
        "then for the image shown first": _percent(position.get("to_first")),
        "labels changed": _changes(figures.get("changes")),
    }


def _rate(rate: Mapping[str, float] | None) -> str:
    if not rate:
        return NONE
    share, low, high = (f"{100 * rate[part]:.1f}" for part in ("share", "low", "high"))
    return f"{share} % ({low} to {high})"


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f} %"


def _circular(found: Mapping[str, Any]) -> str:
    return f"{100 * found['share']:.2f} % of {found['decided']:,}" if found.get("decided") else NONE


def _changes(found: Mapping[str, Any] | None) -> str:
    if not found:
        return NONE
    return f"{found['changed']:,} of {found['pairs']:,}: {found['better']:,} better, {found['worse']:,} worse"
