"""`evoquality score`"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from service.client import Client
from service.commands import tables
from service.commands.common import LOCAL, AsJson, Key, ModeChoice, Seed, Temperature, Url, ask, err, number, out, stop
from service.commands.common import options as chosen
from service.commands.files import images_in
from service.commands.journal import Journal
from service.commands.scoring import Answer, failures, progress, score_files
from service.contract import ScoreOptions


def score(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Image files, and folders.", exists=True)],
    pattern: Annotated[str | None, typer.Option(help="Which files of a folder, for example '*.jpg'.")] = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="Write a .csv, .jsonl or .parquet file; go on where a run stopped.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, max=256, help="Images asked about at a time.")] = 8,
    mode: ModeChoice = None,
    samples: Annotated[int | None, typer.Option("--samples", "-k", min=1, max=64, help="Answers per image.")] = None,
    temperature: Temperature = None,
    seed: Seed = None,
    url: Url = LOCAL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Scores images from 1 (very poor) to 5 (excellent).

    `evoquality score photos/ --out scores.csv` scores a folder, at any depth. What is scored is kept in
    `scores.csv.journal` as well: start the same command again after an interruption, or when pictures were added, and
    only what is missing, changed, or was scored by other weights or options is asked about. Ends with 0 if every image
    has a score, with 1 if some have none (they are listed with the reason, and tried again next time), with 2 if
    nothing could be done.
    """
    options = chosen(ScoreOptions, mode=mode, samples=samples, temperature=temperature, seed=seed)
    if to is not None:
        tables.check(to)
    images = images_in(paths, pattern)
    try:
        answers = ask(url, key, lambda client: _answers(client, images, options, jobs, to))
        if to is not None:
            tables.write(to, answers)
    except OSError as error:
        stop(f"--out {to}: {error.strerror}.")
    if to is not None:
        _summary(to, answers)
    elif as_json:
        for image, answer in answers.items():
            told = {"error": answer} if isinstance(answer, str) else answer.model_dump(exclude={"image"})
            print(json.dumps({"image": str(image), **told}))
    else:
        out.print(_table(answers))
    raise typer.Exit(1 if failures(answers.items()) else 0)


def _answers(
    client: Client, images: list[Path], options: ScoreOptions, jobs: int, to: Path | None
) -> dict[Path, Answer]:
    """An answer to every image, in their order; with an output, those of its journal are not asked for again."""
    if to is None:
        found: dict[Path, Answer] = {}
        with progress(len(images), 0) as advance:
            for image, _, answer in score_files(client, images, options, jobs):
                found[image] = answer
                advance()
        return {image: found[image] for image in images}
    version = client.versions().active
    with Journal(to.with_name(f"{to.name}.journal"), version, options) as journal:
        found = {image: known for image in images if (known := journal.known(image)) is not None}
        missing = [image for image in images if image not in found]
        with progress(len(images), len(found)) as advance:
            for image, state, answer in score_files(client, missing, options, jobs):
                found[image] = answer
                if not isinstance(answer, str):
                    journal.add(image, state, answer)
                advance()
    return {image: found[image] for image in images}


def _summary(to: Path, answers: dict[Path, Answer]) -> None:
    failed = failures(answers.items())
    for image, reason in failed:
        err.print(f"[red]{escape(str(image))}: {escape(reason)}[/red]", highlight=False, soft_wrap=True)
    versions = {answer.version for answer in answers.values() if not isinstance(answer, str)}
    if len(versions) > 1:
        err.print("The weights changed during the run. Start it again to score the rest anew.", style="yellow")
    err.print(
        f"{len(answers) - len(failed)} scored, {len(failed)} without a score: {escape(str(to))}",
        highlight=False,
        soft_wrap=True,
    )


def _table(answers: dict[Path, Answer]) -> Table:
    table = Table("image", "score", "± std", "unreadable", "version")
    for image, answer in answers.items():
        if isinstance(answer, str):
            table.add_row(escape(str(image)), f"[red]{escape(answer)}[/red]")
        else:
            unreadable = f"{answer.unreadable:.0%}"
            table.add_row(escape(str(image)), number(answer.score), number(answer.std), unreadable, answer.version)
    return table
