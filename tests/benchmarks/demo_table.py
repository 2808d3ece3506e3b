"""The README's table of how good the demo's votes are, made of `demo.json`; `make leaderboard` takes the last demo's.

python -m tests.benchmarks.demo_table [--run runs/demo]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tests.benchmarks.markdown import markdown
from trainer.files import read_json, write_json
from trainer.reporting.vote_table import cells

FILE = Path(__file__).with_name("results") / "demo_votes.json"


def table(file: Path = FILE) -> str:
    """Rounds are columns, in Markdown."""
    found = {name: cells(figures) for name, figures in read_json(file).items()}
    titles = next(iter(found.values()))
    return markdown(["", *found], [[title, *(of[title] for of in found.values())] for title in titles])


def taken(run: Path) -> dict[str, Any]:
    """Round -> its votes' figures, without those by margin and difference. Raises ValueError without an audit."""
    report = run / "report.json"
    rounds = read_json(report)["rounds"] if report.exists() else []
    audited = [entry for entry in rounds if "accuracy" in entry.get("vote", {})]
    found = {f"round {entry['round']}": _summary(entry["vote"]) for entry in audited}
    if not found:
        raise ValueError(f"{run} holds no audited votes: run `make demo` first, or name a finished run")
    return found


def _summary(figures: Mapping[str, Any]) -> dict[str, Any]:
    accuracy = figures["accuracy"]
    known = {name: accuracy[name] for name in ("label", "majority")}
    kept = {name: figures[name] for name in ("pairs", "votes", "ties", "unreadable", "cycles", "position", "changes")}
    return {**kept, "accuracy": {**known, "calibration": {"error": accuracy["calibration"]["error"]}}}


def main(run: Annotated[Path, typer.Option(help="Folder of a finished demo run.")] = Path("runs/demo")) -> None:
    """Takes the demo's figures; `make tables` then writes the README's table."""
    try:
        found = taken(run)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--run") from error
    write_json(FILE, found)
    Console().print(f"the votes of {', '.join(found)} of {run} are in {FILE}")


if __name__ == "__main__":
    typer.run(main)
