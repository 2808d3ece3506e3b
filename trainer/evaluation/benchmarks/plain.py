"""A user's own set: a CSV with the columns `image` and `mos` (or `score`), higher is better.

Images are beside the file or in `images/`. Optional columns: `reference`, the original of an image, and `split`.
"""

from __future__ import annotations

from pathlib import Path

from trainer.errors import UserError
from trainer.evaluation.benchmarks.benchmark import Labels, Layout
from trainer.evaluation.benchmarks.files import numbers, read_csv, texts
from trainer.evaluation.benchmarks.splits import official

NAME = "labels.csv"


def read(file: Path, root: Path) -> Labels:
    """Reads the CSV. The benchmark is named after the folder of `labels.csv`, or after any other file."""
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
