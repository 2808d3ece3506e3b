"""PIPAL (Gu et al., ECCV 2020, arXiv 2007.12142): 200 references x 116 distortions, many of image restoration.

Labels are Elo ratings. The label files have no header and there is one a reference.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from trainer.errors import UserError
from trainer.evaluation.benchmarks.benchmark import Labels, Layout, Scale
from trainer.evaluation.benchmarks.files import numbers, read_columns, texts

SCALE = Scale(917, 1836, count=23_200)


def read(folder: Path, root: Path) -> Labels:
    """Reads every text file in `Train_Label/`."""
    files = sorted(folder.glob("[!.]*.txt"))
    if not files:
        raise UserError(f"{folder} has no *.txt with lines such as A0001_00_00.bmp,1520.06")
    table = pd.concat([read_columns(file, ",", "image", "elo") for file in files], ignore_index=True)
    images = texts(table["image"])
    return Labels(
        name="pipal",
        file=folder,
        root=root,
        folders=("Distortion_*", "Train_Dist", "Dist_Imgs"),
        images=images,
        values=numbers(table["elo"]),
        scale=SCALE,
        references=[image.partition("_")[0] for image in images],
    )


LAYOUT = Layout("PIPAL", ("Train_Label",), read)
