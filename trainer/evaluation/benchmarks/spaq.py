"""SPAQ (Fang et al., CVPR 2020): 11,125 photographs from smartphones, without an official split."""

from __future__ import annotations

from pathlib import Path

from trainer.evaluation.benchmarks.benchmark import Labels, Layout, Scale, Witness
from trainer.evaluation.benchmarks.files import numbers, read_excel, texts

SCALE = Scale(2, 96, count=11_125)
_FILE = "MOS and Image attribute scores.xlsx"


def read(file: Path, root: Path) -> Labels:
    """Reads the workbook of scores. Of the attributes, sharpness correlates best with quality."""
    table = read_excel(file, "Image name", "MOS", "Sharpness")
    return Labels(
        name="spaq",
        file=file,
        root=root,
        folders=("TestImage",),
        images=texts(table["Image name"]),
        values=numbers(table["MOS"]),
        scale=SCALE,
        witness=Witness("Sharpness", numbers(table["Sharpness"])),
    )


LAYOUT = Layout("SPAQ", (f"Annotations/{_FILE}", _FILE), read)
