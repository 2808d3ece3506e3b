"""`make ablations`: the paper's ablations on the embedded checkpoint, one table each.

    python -m tests.benchmarks.ablations [--runs runs/ablations] [--seeds 3] [--arms hard,soft] [--tables-only]

All arms with the first seed, then all with the next: stopped early there is something in every table. Started again it
goes on where it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.benchmarks.ablations.arms import ARMS, Arm
from tests.benchmarks.ablations.results import collect
from tests.benchmarks.ablations.summary import summarise
from tests.benchmarks.ablations.tables import FILE, page, show
from tests.benchmarks.ablations.trial import Scale, trials
from trainer.cli import in_sentences
from trainer.files import write_json, write_text


def main(
    study: Annotated[Path, typer.Option("--runs", help="Folder of everything; give it again to go on.")] = Path(
        "runs/ablations"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds of the trainer, from 0.")] = 3,
    arms: Annotated[str, typer.Option(help="Which arms to run, separated by commas.")] = ",".join(ARMS),
    groups: Annotated[int, typer.Option(help="Groups of 12 pictures a round: steps of its training.")] = 30,
    samples: Annotated[int, typer.Option(help="Scores sampled a picture and step.")] = 12,
    tables_only: Annotated[bool, typer.Option("--tables-only", help="Run nothing; show what there is so far.")] = False,
    publish: Annotated[bool, typer.Option("--publish", help=f"Also write {FILE.name}, for the README.")] = False,
) -> None:
    """Runs every arm with every seed and shows what came of them."""
    planned = trials(study, _chosen(arms), seeds)
    if not tables_only:
        from tests.benchmarks.ablations.study import run

        in_sentences(lambda: run(study, planned, Scale(groups, samples)))
    found = summarise(collect(study))
    for table in found["tables"].values():
        show(table, Console())
    write_text(study / "tables.md", page(found["tables"]))
    if publish:
        write_json(FILE, found)


def _chosen(names: str) -> list[Arm]:
    wanted = [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in ARMS]
    if unknown:
        raise typer.BadParameter(f"no arm is called {', '.join(unknown)}; there are {', '.join(ARMS)}")
    return [ARMS[name] for name in wanted]


if __name__ == "__main__":
    typer.run(main)
