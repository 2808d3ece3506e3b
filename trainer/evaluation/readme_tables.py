"""`make tables`: the README's tables, written between `<!-- table:NAME -->` and `<!-- /table:NAME -->` from data files.

A table is a function that returns Markdown. Those here are of the leaderboard; those of the benchmarks of speed are in
`tests/benchmarks/readme_tables.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console

from trainer.evaluation import leaderboard_table
from trainer.evaluation.leaderboard import Leaderboard
from trainer.files import write_text

README = Path("README.md")
Tables = Mapping[str, Callable[[], str]]


TABLES: Tables = {
    "paper": lambda: leaderboard_table.paper(Leaderboard.load()),
    "demo": lambda: leaderboard_table.demo(Leaderboard.load()),
}


def fill(text: str, tables: Tables) -> str:
    """The text with each of the tables in its place.

    Raises:
        ValueError: the text has no place for one of them.
    """
    for name, table in tables.items():
        begin, end = f"<!-- table:{name} -->\n", f"<!-- /table:{name} -->"
        before, begun, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not begun or not ended:
            raise ValueError(f"no place for the table {name}: add the lines {begin.strip()} and {end}")
        text = f"{before}{begin}{table()}\n{end}{after}"
    return text


def write(tables: Tables, readme: Path = README) -> None:
    """Fills a file in place."""
    write_text(readme, fill(readme.read_text(encoding="utf-8"), tables))
    Console().print(f"{readme}: {', '.join(tables)}")


if __name__ == "__main__":
    write(TABLES)
