"""`make ablations`: the paper's ablations on the embedded checkpoint, one table each.

    python -m tests.benchmarks.ablations [--runs runs/ablations] [--seeds 3] [--arms hard,soft] [--tables-only]

Runs all arms with the first seed, then with the next, so that an interrupted study has every table. Run it again to
resume.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.benchmarks.ablations.arms import ARMS, Arm
from tests.benchmarks.ablations.summary import FILE, page, show, summarise
from tests.benchmarks.ablations.trial import Scale, collect, trials
from trainer.cli import in_sentences
from trainer.files import write_json, write_text


def main(
    study: Annotated[Path, typer.Option("--runs", help="Output folder; name it again to resume.")] = Path(
        "runs/ablations"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Number of trainer seeds, from 0.")] = 3,
    arms: Annotated[str, typer.Option(help="Arms to run, separated by commas.")] = ",".join(ARMS),
    groups: Annotated[int, typer.Option(help="Groups of 12 pictures in a round; one training step each.")] = 30,
    samples: Annotated[int, typer.Option(help="Scores sampled per picture and step.")] = 12,
    tables_only: Annotated[bool, typer.Option("--tables-only", help="Run nothing; show the results so far.")] = False,
    publish: Annotated[bool, typer.Option("--publish", help=f"Also write {FILE.name} for `make tables`.")] = False,
) -> None:
    """Runs every arm with every seed and shows the results."""
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
        raise typer.BadParameter(f"unknown arms {', '.join(unknown)}; known: {', '.join(ARMS)}")
    return [ARMS[name] for name in wanted]


if __name__ == "__main__":
    typer.run(main)
