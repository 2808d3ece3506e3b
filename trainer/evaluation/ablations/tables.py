"""The tables of `trainer/evaluation/ablations.json`, for the README and the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from trainer.evaluation.ablations.figures import FIGURES
from trainer.files import read_json

FILE = Path(__file__).parents[1] / "ablations.json"


def table(name: str) -> str:
    """One ablation (a name in `layout.ABLATIONS`) in Markdown, from the committed file. Raises KeyError."""
    return markdown(read_json(FILE)["tables"][name])


def markdown(found: Mapping[str, Any]) -> str:
    """A table and its comparisons, of what `summarise` makes of an ablation."""
    heading, *lines = _grid(found)
    rule = ["---"] * len(heading)
    rows = "\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *lines))
    return "\n\n".join([rows, *comparisons(found)])


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
    """What may be said of the differences: one paragraph, none without any."""
    if not found["compared"]:
        return []
    said = "; ".join(f"{one['first']} − {one['second']} {_interval(one)}" for one in found["compared"])
    heading = FIGURES[found["figures"][0]].heading
    return [f"{heading}, differences within a seed with their 95 % t interval (three seeds say little): {said}."]


def _grid(found: Mapping[str, Any]) -> Iterator[list[str]]:
    """The heading, then a line each."""
    yield ["", *(FIGURES[name].heading for name in found["figures"]), "seeds", "the paper"]
    for line in found["lines"]:
        figures = [_figure(name, line[name]) for name in found["figures"]]
        yield [line["label"], *figures, _seeds(line), _paper(line["paper"])]


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


def _paper(paper: float | str) -> str:
    return paper if isinstance(paper, str) else f"{paper:.3f}"


def _interval(one: Mapping[str, Any]) -> str:
    shown = f"{one['difference']:+.3f}"
    return shown if one["low"] is None else f"{shown} ({one['low']:+.3f} to {one['high']:+.3f})"
