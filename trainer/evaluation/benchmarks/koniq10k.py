"""KonIQ-10k (Hosu et al. 2020, arXiv 1910.06180): 10,073 photographs with authentic distortions.

Two label files are published. `koniq10k_distributions_sets.csv` has the official split and calls MOS what
`koniq10k_scores_and_distributions.csv` calls MOS_zscore; the latter's own MOS is the mean of votes from 1 to 5.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainer.evaluation.benchmarks.benchmark import Labels, Layout, Scale, Witness
from trainer.evaluation.benchmarks.files import find, numbers, read_csv, texts
from trainer.evaluation.benchmarks.splits import official

SCALE = Scale(3.91, 88.39, count=10_073)
TEST = 2015
"""Images of the official test part."""
FOLDERS = ("1024x768", "512x384")
VOTES = ("c1", "c2", "c3", "c4", "c5")


def read(file: Path, root: Path) -> Labels:
    """Reads either label file. Uses the larger of the two image sizes."""
    table = read_csv(file, "image_name", *VOTES, "MOS")
    column = "MOS_zscore" if "MOS_zscore" in table else "MOS"
    folder = next((folder for folder in FOLDERS if find(root, folder)), FOLDERS[0])
    notes = [f"{column} of {file.name}, images of {folder}"]
    if "set" not in table:
        notes.append(f"{file.name} has no official split; koniq10k_distributions_sets.csv has one")
    return Labels(
        name="koniq10k",
        file=file,
        root=root,
        folders=(folder,),
        images=texts(table["image_name"]),
        values=numbers(table[column]),
        scale=SCALE,
        witness=Witness("the mean of the votes c1 to c5", _mean_vote(table)),
        parts=official(table["set"]) if "set" in table else None,
        notes=notes,
    )


def _mean_vote(table: pd.DataFrame) -> NDArray[np.float64]:
    votes = np.stack([numbers(table[column]) for column in VOTES], axis=1)
    return np.asarray(votes @ np.arange(1, 6) / votes.sum(axis=1))


_SCORES = "koniq10k_scores_and_distributions"
LAYOUT = Layout("KonIQ-10k", ("koniq10k_distributions_sets.csv", f"{_SCORES}/{_SCORES}.csv", f"{_SCORES}.csv"), read)
