"""Anybody's own set: a CSV with the columns `image` and `mos` (or `score`), higher is better.

Images lie beside the file or in `images/`. Two columns more may say which `reference` an image was made from, and which
`split` it belongs to.
"""

from __future__ import annotations

from pathlib import Path

from trainer.errors import UserError
from trainer.evaluation.benchmarks.layout import Labels, Layout
from trainer.evaluation.benchmarks.splits import official
from trainer.evaluation.benchmarks.tables import numbers, read_csv, texts

NAME = "labels.csv"


def read(file: Path, root: Path) -> Labels:
    """`labels.csv` gives the benchmark its folder's name, any other its own."""
    table = read_csv(file, "image")
    column = next((column for column in ("mos", "score") if column in table), None)
    if column is None:
        raise UserError(
            f"{file} needs a header with the columns image,mos (or image,score); it has {', '.join(table.columns)}"
        )
    return Labels(
        name=root.absolute().name if file.name.lower() == NAME else file.stem,
        file=file,
        root=root,
        folders=("images", "."),
        images=texts(table["image"]),
        values=numbers(table[column]),
        references=texts(table["reference"]) if "reference" in table else None,
        parts=official(table["split"]) if "split" in table else None,
    )


LAYOUT = Layout("plain", (NAME,), read, named=("*.csv",))
