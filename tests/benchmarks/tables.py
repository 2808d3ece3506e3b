"""`make tables`: the README's tables, written between `<!-- table:NAME -->` and `<!-- /table:NAME -->` from data files,
and its plot of the demo.

A table is a function that returns Markdown. Here are those of the leaderboard, of the demo's votes and of the
ablations; those of speed are in `tests/benchmarks/readme_tables.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from rich.console import Console

from tests.benchmarks import demo_table, leaderboard_plot
from tests.benchmarks.ablations import tables as ablations
from tests.benchmarks.leaderboard import Leaderboard
from tests.benchmarks.leaderboard_table import PAPER, by_set, demo_models
from trainer.files import read_json, write_text

README = Path("README.md")
PLOT = Path("tests/benchmarks/results/gain.svg")
Tables = Mapping[str, Callable[[], str]]


def tables() -> Tables:
    """The leaderboard's `paper` and `demo`, the demo's `pseudo-labels`; for each published ablation `ablation-NAME`."""
    board = Leaderboard.load()
    published = read_json(ablations.FILE)["tables"] if ablations.FILE.exists() else ()
    return {
        "paper": partial(by_set, board, PAPER),
        "demo": partial(by_set, board, demo_models(board)),
        "pseudo-labels": demo_table.table,
        **{f"ablation-{name}": partial(ablations.table, name) for name in published},
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
    write(tables())
    write_text(PLOT, leaderboard_plot.demo(Leaderboard.load()))
