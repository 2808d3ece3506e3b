"""Scores as a file: CSV, JSON lines or Parquet, one row an image."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evoquality.contract import ScoreResponse
from service.commands.common import need, stop
from service.files import printable, replacing

Answers = Mapping[Path, ScoreResponse | str]
COLUMNS = {
    "image": str,
    "score": float,
    "std": float,
    "entropy": float,
    "mode": str,
    "samples": int,
    "thoughts": int,
    "seed": int,
    "unreadable": float,
    "cut_off": float,
    "width": int,
    "height": int,
    "seen_width": int,
    "seen_height": int,
    "model": str,
    "version": str,
    "error": str,
}
"""The columns of every format, in order. `error` says why an image has no score."""


def check(file: Path) -> None:
    """Ends the command, before any work, if such a file cannot be written."""
    if file.suffix not in _WRITERS:
        stop(f"--out {file}: the name must end in {', '.join(_WRITERS)}.")
    if file.suffix == ".parquet":
        need("parquet", f"--out {file}")
    if not file.absolute().parent.is_dir():
        stop(f"--out {file}: its folder does not exist.")


def write(file: Path, answers: Answers) -> None:
    """Replaces the file atomically. Raises OSError."""
    rows = [_row(image, answer) for image, answer in answers.items()]
    with replacing(file.absolute()) as beside:
        _WRITERS[file.suffix](beside, rows)


def _row(image: Path, answer: ScoreResponse | str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    if isinstance(answer, str):
        return {**row, "image": printable(image), "error": answer}
    fields = answer.model_dump(exclude={"image", "distribution", "answers"})
    return {**row, **fields, **answer.image.model_dump(), "image": printable(image)}


def _csv(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _jsonl(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def _parquet(file: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    types = {str: pyarrow.string(), float: pyarrow.float64(), int: pyarrow.int64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema), file)


_WRITERS = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
