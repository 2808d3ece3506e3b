"""Distorted variants of an image: which ones are decided at once, their pictures are made when they are needed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.files import writing
from trainer.pool.distortions import LEVELS, TYPES, distort
from trainer.pool.image import PoolImage


def planned(source: str, folder: Path, count: int, seed: int) -> list[PoolImage]:
    """`count` variants of different types at random levels; the seed and the source's content decide."""
    rng = np.random.default_rng((seed, int(source, 16)))
    kinds = rng.choice(list(TYPES), count, replace=False)
    levels = rng.integers(LEVELS.start, LEVELS.stop, count)
    ids = [(f"{source}-{kind}-{level}", str(kind), int(level)) for kind, level in zip(kinds, levels, strict=True)]
    return [PoolImage(name, str(folder / f"{name}.png"), source, kind, level) for name, kind, level in ids]


def make(variant: PoolImage, picture: Image.Image) -> None:
    """Writes a variant of the source's picture. Its noise is decided by its id.

    Raises:
        ValueError: the image is no variant.
    """
    if variant.kind is None or variant.level is None:
        raise ValueError(f"{variant.id} is an original, no variant")
    rng = np.random.default_rng(int(hashlib.sha256(variant.id.encode()).hexdigest()[:16], 16))
    path = Path(variant.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    with writing(path):
        distort(picture, variant.kind, variant.level, rng).save(beside, format="PNG")
        beside.replace(path)
