"""`make bench-scale`: what decides whether a real model can be served and evolved. Writes `runs/bench/scale.json`.

python -m tests.benchmarks.scale [logits] [bf16] ...    all without arguments; figures of the others stay in the file

Each module of this folder with a function `measure` gives the figures of its name, or several by their names. The bars
are shown beside them; a figure that misses its bar ends the command with 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from rich.console import Console
from rich.table import Table

from trainer.files import read_json, write_json

OUT = Path("runs/bench/scale.json")
BARS = {
    ("logits", "plain_over_chunked"): 8,
    ("bf16", "merge_kept"): 0.95,
    ("bf16", "shared_prefix_taken"): True,
    ("thinking", "in_flight_share"): 0.9,
    ("thinking", "demo_gain_percent"): 25,
}
"""The least that a figure must be."""


def parts() -> list[str]:
    """The modules that measure."""
    modules = (module.name for module in iter_modules([str(Path(__file__).parent)]))
    named = [name for name in modules if not name.startswith(("__", "test_"))]
    return [name for name in named if hasattr(import_module(f"{__package__}.{name}"), "measure")]


def held(figures: dict[str, Any]) -> Iterator[tuple[str, Any, str, bool]]:
    """Of each figure that has a bar: its name, its value, the bar, and whether it holds."""
    for (part, name), least in BARS.items():
        if name in figures.get(part, {}):
            value = figures[part][name]
            yield f"{part}.{name}", value, f"at least {least}", value >= least
    for recipe in figures.get("recipes", []):
        most = recipe["gpu_gib"]
        yield f"recipes: {recipe['name']}", recipe["computed_gib"], f"below {most} GiB", recipe["computed_gib"] < most


def main(names: Sequence[str], console: Console) -> int:
    """Measures the parts, and returns the exit code."""
    figures = read_json(OUT) if OUT.exists() else {}
    for name in names or parts():
        console.print(f"{name} ...")
        found = import_module(f"{__package__}.{name}").measure()
        figures |= found if name in found else {name: found}
        OUT.parent.mkdir(parents=True, exist_ok=True)
        write_json(OUT, figures)
    table, bars = Table("figure", "measured", "bar", ""), list(held(figures))
    for name, value, bar, holds in bars:
        shown = f"{value:.3g}" if isinstance(value, float) else str(value)
        table.add_row(name, shown, bar, "" if holds else "missed")
    console.print(table)
    console.print(f"wrote {OUT}")
    return 0 if all(holds for *_, holds in bars) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Console()))
