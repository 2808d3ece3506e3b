"""Tables in Markdown, as the README has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of text cells."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, ["---"] * len(heading), *rows))
