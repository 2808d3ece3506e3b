"""Tables in Markdown, and their places in a README: the lines `<!-- table:NAME -->` and `<!-- /table:NAME -->`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

Tables = Mapping[str, Callable[[], str]]
"""Name -> function that returns the table in Markdown."""
_BEGIN = re.compile(r"^<!-- table:(\S+) -->\n", re.MULTILINE)


def markdown(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table of text cells."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, ["---"] * len(heading), *rows))


def places(text: str) -> list[str]:
    """Names of the tables that the text has a place for, in order."""
    return _BEGIN.findall(text)


def fill(text: str, tables: Tables) -> str:
    """Writes each table into its place in the text.

    Raises:
        ValueError: a place has no end, or its name is not in `tables`.
    """
    for name in places(text):
        begin, end = f"<!-- table:{name} -->\n", f"<!-- /table:{name} -->"
        before, _, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if name not in tables:
            raise ValueError(f"unknown table {name}; known: {', '.join(tables)}")
        if not ended:
            raise ValueError(f"the table {name} has no end: add the line {end}")
        text = f"{before}{begin}{tables[name]()}\n{end}{after}"
    return text
