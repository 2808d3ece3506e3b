"""The tables of `tests/benchmarks/results/ablations.json`, for the README and the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.ablations.figures import FIGURES
from tests.benchmarks.ablations.summary import LEVEL
from tests.benchmarks.markdown import markdown
from trainer.files import read_json

FILE = Path(__file__).parents[1] / "results/ablations.json"


def table(name: str) -> str:
    """One ablation (a name in `layout.ABLATIONS`) in Markdown, from the committed file.

    Raises:
        KeyError: no study that was published has this one.
        FileNotFoundError: none was published.
    """
    return in_markdown(read_json(FILE)["tables"][name])


def in_markdown(found: Mapping[str, Any]) -> str:
    """The table of what `summarise` makes of an ablation."""
    heading, *lines = _grid(found)
    return markdown(heading, lines)


def page(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """All tables with their comparisons, in Markdown."""
    parts = [[f"## {found['title']}", in_markdown(found), *comparisons(found)] for found in tables.values()]
    return "\n\n".join(text for part in parts for text in part) + "\n"


def show(found: Mapping[str, Any], console: Console) -> None:
    """The same in the terminal."""
    heading, *lines = _grid(found)
    shown = Table(*heading, title=found["title"])
    for line in lines:
        shown.add_row(*line)
    console.print(shown)
    for sentence in comparisons(found):
        console.print(sentence, highlight=False)


def comparisons(found: Mapping[str, Any]) -> list[str]:
    """What may be said of the differences, in one paragraph; none without any."""
    if not found["compared"]:
        return []
    heading, level = FIGURES[found["figures"][0]].heading, f"{100 * LEVEL:.0f} %"
    said = "; ".join(f"{one['first']} - {one['second']} {_interval(one)}" for one in found["compared"])
    return [
        f"{heading}, mean difference within a seed with its paired t interval of {level}, wide with few seeds: {said}."
    ]


def _grid(found: Mapping[str, Any]) -> Iterator[list[str]]:
    """The heading, then a line each."""
    yield ["", *(FIGURES[name].heading for name in found["figures"]), "seeds", "gate would pass", "the paper"]
    for line in found["lines"]:
        figures = [_figure(name, line[name]) for name in found["figures"]]
        yield [line["label"], *figures, _seeds(line), _gate(line), _paper(line["paper"])]


def _figure(name: str, value: Mapping[str, float | None] | None) -> str:
    if value is None:
        return "–"
    digits = FIGURES[name].digits
    shown = f"{value['mean']:.{digits}f}"
    return shown if value["spread"] is None else f"{shown} ± {value['spread']:.{digits}f}"


def _seeds(line: Mapping[str, Any]) -> str:
    if line["seeds"] is None:
        return ""
    return f"{line['seeds']}, {line['failed']} failed" if line["failed"] else str(line["seeds"])


def _gate(line: Mapping[str, Any]) -> str:
    """How many of the seeds' candidates the gate's default limits would have let serve."""
    return f"{line['gate_passed']} of {line['seeds']}" if line["seeds"] else ""


def _paper(paper: float | str) -> str:
    return paper if isinstance(paper, str) else f"{paper:.3f}"


def _interval(one: Mapping[str, Any]) -> str:
    shown = f"{one['difference']:+.3f}"
    return shown if one["low"] is None else f"{shown} ({one['low']:+.3f} to {one['high']:+.3f})"
