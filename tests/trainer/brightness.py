"""A benchmark that the fake engine is good at: grey pictures, whose quality is their brightness."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from tests.service.conftest import picture
from trainer.evaluation.benchmarks.benchmark import Benchmark
from trainer.evaluation.benchmarks.load import load

LEVELS = (20, 60, 90, 130, 160, 200, 230, 250)


def brightness(folder: Path, name: str = "brightness", levels: Sequence[int] = LEVELS) -> Benchmark:
    """Writes the benchmark and reads it."""
    images = folder / name / "images"
    images.mkdir(parents=True)
    for level in levels:
        (images / f"{level}.png").write_bytes(picture(level))
    with (images.parent / "labels.csv").open("w", newline="") as labels:
        csv.writer(labels).writerows([("image", "mos"), *((f"{level}.png", level + level % 7) for level in levels)])
    return load(images.parent)
