"""Reads benchmarks as they are distributed. Nothing outside this package opens labels."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from trainer.evaluation.benchmarks.benchmark import Benchmark

Split = Literal["auto", "all", "train", "validation", "test"]


def load(path: Path, split: Split = "auto") -> Benchmark:
    """Reads one benchmark.

    Raises:
        ValueError: the label file is missing, lacks a column, or names images that do not exist.
    """
    labels = path / "labels.csv"
    if not labels.is_file():
        raise ValueError(f"{path} is no benchmark: it has no labels.csv with the columns image,mos")
    with labels.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"image", "mos"} <= set(rows[0]):
        raise ValueError(f"{labels} needs a header with the columns image,mos and at least one row")
    ids = [f"images/{row['image']}" for row in rows]
    missing = [id for id in ids if not (path / id).is_file()]
    if missing:
        raise ValueError(f"{labels} names {len(missing)} images that do not exist, for example {missing[0]}")
    return Benchmark(path.name, path, ids, np.array([float(row["mos"]) for row in rows]))


def load_all(paths: Path | Sequence[Path], split: Split = "auto") -> list[Benchmark]:
    """Every benchmark named, or every one directly below a folder, by name. Raises ValueError if there is none."""
    if not isinstance(paths, Path):
        return [load(path, split) for path in paths]
    found = [load(labels.parent, split) for labels in sorted(paths.glob("*/labels.csv"))]
    if not found:
        raise ValueError(f"no benchmark below {paths}: expected <name>/labels.csv and <name>/images/")
    return found
