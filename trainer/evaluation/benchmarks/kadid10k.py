"""KADID-10k (Lin et al., QoMEX 2019): 81 references x 25 distortions x 5 levels.

The column dmos of its label file is higher for better images.
"""

from __future__ import annotations

from pathlib import Path

from trainer.evaluation.benchmarks.benchmark import Labels, Layout, Scale, quality_levels
from trainer.evaluation.benchmarks.files import numbers, read_csv, texts

SCALE = Scale(1, 4.93, count=10_125)


def read(file: Path, root: Path) -> Labels:
    """Reads `dmos.csv`."""
    table = read_csv(file, "dist_img", "ref_img", "dmos")
    images = texts(table["dist_img"])
    return Labels(
        name="kadid10k",
        file=file,
        root=root,
        folders=("images", "distorted_images"),
        images=images,
        values=numbers(table["dmos"]),
        scale=SCALE,
        witness=quality_levels(images),
        references=texts(table["ref_img"]),
    )


LAYOUT = Layout("KADID-10k", ("dmos.csv",), read)
