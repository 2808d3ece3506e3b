"""Seven synthetic benchmarks, one per kind of damage, in place of the paper's photographs.

    python -m trainer.demo.benchmarks DIR    writes DIR/<set>/images/*.png and DIR/<set>/labels.csv

Contents are those of the `benchmark` split, which shares none with training or pool. The columns of labels.csv are
image, mos and reference: mos is `truth.quality`, calibrated by a full-reference measure; reference is the content's
number. Only `trainer/evaluation/` opens the label files.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from trainer.demo.contents import content
from trainer.demo.truth import KINDS, damage, quality
from trainer.pool.distortions import FAMILIES, LEVELS

CONTENTS, VARIANTS = 40, 4

SETS: dict[str, list[str]] = {
    "blur": FAMILIES["blur"],
    "noise": FAMILIES["noise"],
    "compression": FAMILIES["compression"],
    "resampling": FAMILIES["resampling"],
    "tone_colour": FAMILIES["tone"] + FAMILIES["colour"],
    "wild": KINDS,
    "local_structure": [*FAMILIES["local"], "oversharpen", "stripes"],
}
"""Set -> its distortion types; `wild` mixes two types of any family."""
SHARE_OF_LEVEL = (0.4, 0.0, 0.2, 0.0, 0.4)
"""Share of each level. Damage is mostly slight or severe, so that 160 pictures can separate models."""


def write_benchmarks(directory: Path) -> None:
    """Writes all seven sets, 160 pictures each; the same files on every run."""
    for number, name in enumerate(SETS):
        write_set(directory / name, name, first_content=number * CONTENTS)


def write_set(directory: Path, name: str, first_content: int) -> None:
    """Writes one set from its own contents."""
    rng = np.random.default_rng((77, first_content))
    (directory / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(first_content, first_content + CONTENTS):
        reference = content("benchmark", index)
        for variant in range(VARIANTS):
            kinds = [str(kind) for kind in rng.choice(SETS[name], 2 if name == "wild" else 1, replace=False)]
            level = int(rng.choice(LEVELS, p=SHARE_OF_LEVEL))
            damages = [(kind, level) for kind in kinds]
            file = f"{index:03d}_{variant}_{'+'.join(kinds)}_{level}.png"
            damage(reference, damages, rng).save(directory / "images" / file)
            rows.append((file, f"{quality(damages):.4f}", f"{index:03d}"))
    with (directory / "labels.csv").open("w", newline="") as labels:
        csv.writer(labels).writerows([("image", "mos", "reference"), *rows])


if __name__ == "__main__":
    write_benchmarks(Path(sys.argv[1]))
