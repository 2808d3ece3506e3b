"""Benchmarks: a folder with `images/` and `labels.csv` (image, mos). Nothing outside this package opens labels."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Images and their mean opinion scores, in the label file's order."""

    name: str
    images: list[Path]
    mos: NDArray[np.float64]


def load(folder: Path) -> Benchmark:
    """Reads one benchmark.

    Raises:
        ValueError: the label file is missing, lacks a column, or names images that do not exist.
    """
    labels = folder / "labels.csv"
    if not labels.is_file():
        raise ValueError(f"{folder} is no benchmark: it has no labels.csv with the columns image,mos")
    with labels.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"image", "mos"} <= set(rows[0]):
        raise ValueError(f"{labels} needs a header with the columns image,mos and at least one row")
    images = [folder / "images" / row["image"] for row in rows]
    missing = [path.name for path in images if not path.is_file()]
    if missing:
        raise ValueError(f"{labels} names {len(missing)} images that do not exist, for example {missing[0]}")
    return Benchmark(folder.name, images, np.array([float(row["mos"]) for row in rows]))


def load_all(folder: Path) -> list[Benchmark]:
    """Every benchmark directly below a folder, by name. Raises ValueError if there is none."""
    found = [load(path.parent) for path in sorted(folder.glob("*/labels.csv"))]
    if not found:
        raise ValueError(f"no benchmark below {folder}: expected <name>/labels.csv and <name>/images/")
    return found
