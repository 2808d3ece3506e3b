"""`make tables`: the README's tables of the benchmarks of speed and of replicas, from `tests/benchmarks/results/`.

python -m tests.benchmarks.readme_tables [--take runs/bench]    takes in what `make bench` wrote there first
python -m tests.benchmarks.readme_tables --take runs/replicas   takes in what `make replicas` wrote there first
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tests.benchmarks.markdown import markdown
from tests.benchmarks.replicas.table import HEADING, rows
from tests.benchmarks.tables import Tables, write
from trainer.files import read_json

RESULTS = Path(__file__).with_name("results")
SIDES = {
    "direct": "(a) AsyncLLM called directly",
    "service": "(b) this service over HTTP",
    "vllm_serve": "(c) vLLM's server, base64, answers parsed by the caller",
}
KINDS = {"k1": "1 sample", "k8": "8 samples", "expected": "expected"}
LABELS = {
    "stopped": "stopped when decided",
    "full": "all {votes}",
    "another_full": "all {votes} again",
    "exact": "exact probabilities",
}


def serving() -> str:
    """Images a second (p50 / p99 in ms) of every side, by what is asked for and by callers."""
    table = read_json(RESULTS / "serve.json")["table"]
    cells = {(row["side"], row["kind"], row["callers"]): _rate(row) for row in table}
    callers = sorted({row["callers"] for row in table})
    heading = ["side", "asked for", *("1 caller" if count == 1 else f"{count} callers" for count in callers)]
    rows = (
        [SIDES[side], KINDS[kind], *(cells[side, kind, count] for count in callers)]
        for side in SIDES
        for kind in KINDS
        if (side, kind, callers[0]) in cells
    )
    return markdown(heading, rows)


def training() -> str:
    """Seconds of passes and steps, and how many times those of the first side that was measured at the same."""
    table = read_json(RESULTS / "train.json")["table"]
    ours = {row["what"]: row["seconds"] for row in reversed(table)}
    return markdown(["side", "what", "seconds", "times"], ([*_names(row), *_seconds(row, ours)] for row in table))


def votes() -> str:
    """What a pair's label takes and how right it is, against all votes at the same temperature."""
    found = read_json(RESULTS / "train.json")["votes"]
    names = sorted(name for name in found if name.startswith("temperature"))
    rows = (
        [f"{name}: {label.format(votes=found['votes'])}", *_vote(found[name][way])]
        for name in names
        for way, label in LABELS.items()
    )
    return markdown(["", "votes a pair", "agreement", "where settled", "right"], rows)


def replicas() -> str:
    """How long three replicas take to follow each move of the pointer."""
    return markdown(HEADING, rows(read_json(RESULTS / "replicas.json")))


TABLES: Tables = {"serving": serving, "training": training, "votes": votes, "replicas": replicas}
TAKEN = ("serve.json", "train.json", "replicas.json")


def main(
    take: Annotated[Path | None, typer.Option(help="Folder of benchmark results to take in first.")] = None,
) -> None:
    """Writes the tables into the README."""
    if take:
        _take(take)
    write(TABLES)


def _take(folder: Path) -> None:
    measured = [file for name in TAKEN if (file := folder / name).exists()]
    if not measured:
        raise typer.BadParameter(
            f"{folder} holds none of {', '.join(TAKEN)}: run `make bench` or `make replicas` first", param_hint="--take"
        )
    for file in measured:
        shutil.copy(file, RESULTS)


def _rate(row: Mapping[str, Any]) -> str:
    return f"{row['images_per_second']:.1f} ({row['p50_ms']:.0f} / {row['p99_ms']:.0f})"


def _names(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["side"], row["what"]


def _seconds(row: Mapping[str, Any], first: Mapping[str, float]) -> Iterator[str]:
    yield f"{row['seconds']:.3g}"
    times = row["seconds"] / first[row["what"]]
    yield f"{times:.1f}" if times != 1 else ""


def _vote(figures: Mapping[str, float]) -> Iterator[str]:
    yield f"{figures['votes_a_pair']:.3g} ({figures['per_pair_over_full']:.0%})"
    for name in ("agreement", "agreement_where_settled", "accuracy"):
        yield f"{100 * figures[name]:.1f} %"


if __name__ == "__main__":
    typer.run(main)
