"""LIVE in the Wild Image Quality Challenge (Ghadiyaram and Bovik, TIP 2016, arXiv 1511.02919): 1,162 photographs.

The label file also lists the seven images, t1.bmp to t7.bmp, on which its observers were trained.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import numpy as np
import scipy.io

from trainer.errors import UserError
from trainer.evaluation.benchmarks.benchmark import Labels, Layout, Scale
from trainer.evaluation.benchmarks.files import find

SCALE = Scale(3.42, 92.43, count=1162)
_TRAINING = re.compile(r"t\d+\.bmp", re.IGNORECASE)


def is_training(image: str) -> bool:
    """True if the name is that of an image on which observers were trained."""
    return bool(_TRAINING.fullmatch(PurePosixPath(image).name))


def read(file: Path, root: Path) -> Labels:
    """Reads `AllMOS_release.mat`, (1, N), and `AllImages_release.mat`, (N, 1)."""
    names = [str(np.ravel(cell)[0]) for cell in np.ravel(_array(file.parent, "AllImages_release"))]
    mos = np.atleast_2d(_array(file.parent, "AllMOS_release"))[0].astype(np.float64)
    if len(names) != len(mos):
        raise UserError(f"{file} has {len(mos)} labels for the {len(names)} images of AllImages_release.mat")
    kept = [row for row, name in enumerate(names) if not is_training(name)]
    return Labels(
        name="livec",
        file=file,
        root=root,
        folders=("Images",),
        images=[names[row] for row in kept],
        values=mos[kept],
        scale=SCALE,
        notes=[f"{len(names) - len(kept)} training images dropped"],
    )


def _array(folder: Path, name: str) -> np.ndarray:
    files = find(folder, f"{name}.mat")
    if not files:
        raise UserError(f"{folder} has no {name}.mat")
    return np.asarray(scipy.io.loadmat(str(files[0]))[name])


LAYOUT = Layout("LIVE in the Wild", ("Data/AllMOS_release.mat",), read)
