"""What a benchmark is: images and their mean opinion scores (MOS)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Benchmark:
    """N images and what people thought of them, in the label file's order."""

    name: str
    """`koniq10k`, `spaq`, `kadid10k`, `pipal`, `livec`, `agiqa3k`, `tid2013`, `csiq`, or the folder's or file's."""
    root: Path
    ids: list[str]
    """(N,) posix paths relative to `root`; the key of an image in files of predictions."""
    mos: NDArray[np.float64]
    """(N,) Higher is better, whatever the label file's direction."""
    references: list[str] | None = None
    """(N,) The undistorted original of each, where the set is made from originals."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the results must know: images that are missing, labels that were turned, the split."""
    missing: list[str] = field(default_factory=list)
    """Images that have a label but no file, as the label file names them. They are in none of the above."""

    @property
    def images(self) -> list[Path]:
        """(N,) Where the files are."""
        return [self.root / id for id in self.ids]
