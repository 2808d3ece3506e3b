"""CSIQ (Larson and Chandler, JEI 2010): 30 references x 6 distortions x 4 or 5 levels.

Labels are DMOS, 0 for an image equal to its reference, at most 1. The published workbook has titles above its table and
blank columns beside it; many models' code comes with `csiq_label.txt`, a text file of names and DMOS.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from trainer.evaluation.benchmarks.benchmark import Labels, Layout, Scale, damage_levels
from trainer.evaluation.benchmarks.files import numbers, read_columns, read_excel, texts

SCALE = Scale(0, 1, count=866, lower_is_better=True)
FOLDERS = ("dst_imgs/*", "dst_imgs", "dst_imgs_all")
IN_NAMES = {"noise": "AWGN", "blur": "BLUR", "jpeg": "JPEG", "jpeg 2000": "jpeg2000"}
"""Distortion in the workbook -> in image names, where they differ."""


def read(file: Path, root: Path) -> Labels:
    """Reads either label file."""
    images, dmos = (_workbook if file.suffix.lower() == ".xlsx" else _text)(file)
    return Labels(
        name="csiq",
        file=file,
        root=root,
        folders=FOLDERS,
        images=images,
        values=numbers(dmos),
        scale=SCALE,
        witness=damage_levels(images),
        references=[image.partition(".")[0] for image in images],
    )


def _workbook(file: Path) -> tuple[list[str], pd.Series]:
    table = read_excel(file, "image", "dst_type", "dst_lev", "dmos", sheet="all_by_image")
    rows = zip(*(texts(table[column]) for column in ("image", "dst_type", "dst_lev")), strict=True)
    return [f"{image}.{IN_NAMES.get(kind, kind)}.{level}.png" for image, kind, level in rows], table["dmos"]


def _text(file: Path) -> tuple[list[str], pd.Series]:
    table = read_columns(file, r"\s+", "image", "dmos")
    return [name if name.endswith(".png") else f"{name}.png" for name in texts(table["image"])], table["dmos"]


LAYOUT = Layout("CSIQ", ("csiq.DMOS.xlsx", "csiq_label.txt"), read)
