"""AGIQA-3K (Li et al. 2023, arXiv 2306.04717): 2,982 generated images, judged for quality and for their prompt."""

from __future__ import annotations

from pathlib import Path

from trainer.evaluation.benchmarks.benchmark import Labels, Layout, Scale, Witness
from trainer.evaluation.benchmarks.files import numbers, read_csv, texts

SCALE = Scale(0, 4.49, count=2982)
COLUMNS = ("name", "mos_quality", "mos_align")


def read(file: Path, root: Path) -> Labels:
    """Reads `data.csv`, whose two scores correlate positively."""
    table = read_csv(file, *COLUMNS)
    return Labels(
        name="agiqa3k",
        file=file,
        root=root,
        folders=(".", "images", "AGIQA*"),
        images=texts(table["name"]),
        values=numbers(table["mos_quality"]),
        scale=SCALE,
        witness=Witness("mos_align", numbers(table["mos_align"])),
    )


LAYOUT = Layout("AGIQA-3K", ("data.csv",), read, columns=COLUMNS)
