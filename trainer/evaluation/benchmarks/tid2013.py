"""TID2013 (Ponomarenko et al., SPIC 2015): 25 references x 24 distortions x 5 levels; file names of mixed case."""

from __future__ import annotations

from pathlib import Path

from trainer.evaluation.benchmarks.benchmark import Labels, Layout, Scale, quality_levels
from trainer.evaluation.benchmarks.files import numbers, read_columns, texts

SCALE = Scale(0.24, 7.21, count=3000)


def read(file: Path, root: Path) -> Labels:
    """Reads `mos_with_names.txt`."""
    table = read_columns(file, r"\s+", "mos", "image")
    images = texts(table["image"])
    return Labels(
        name="tid2013",
        file=file,
        root=root,
        folders=("distorted_images",),
        images=images,
        values=numbers(table["mos"]),
        scale=SCALE,
        witness=quality_levels(images),
        references=[image.partition("_")[0].upper() for image in images],
    )


LAYOUT = Layout("TID2013", ("mos_with_names.txt",), read)
