"""Damaged pictures with their ground truth, from which the embedded checkpoint is taught.

Labels are used here and by `trainer/evaluation/` alone; an evolution round never imports this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.demo.contents import SIDE, Split, content
from trainer.demo.truth import Damage, measured_quality, quality
from trainer.pool.distortions import TYPES, distort

VARIANTS = 12
"""Pictures made from each content."""

KINDS = list(TYPES)


@dataclass(slots=True)
class Pictures:
    """N labelled pictures."""

    pixels: NDArray[np.uint8]
    """(N, 112, 112, 3)."""
    quality: NDArray[np.float32]
    """(N,), 1 to 5: the truth, see `truth.quality`."""
    measured: NDArray[np.float32]
    """(N,), 1 to 5: the full-reference measure of each picture itself."""
    kinds: NDArray[np.bool_]
    """(N, 35): which distortion types each picture has."""


def damage(picture: Image.Image, damages: Sequence[Damage], rng: np.random.Generator) -> Image.Image:
    """Applies distortions one after another."""
    for kind, level in damages:
        picture = distort(picture, kind, level, rng)
    return picture


def make_pictures(split: Split, contents: range, workers: int, kinds: Sequence[str] = KINDS) -> Pictures:
    """`VARIANTS` pictures of each content: mostly one distortion of `kinds`, some mixtures, some untouched."""
    with ProcessPoolExecutor(workers) as pool:
        made = list(pool.map(partial(_variants, split, of=kinds), contents, chunksize=16))
    return Pictures(
        pixels=np.concatenate([pictures.pixels for pictures in made]),
        quality=np.concatenate([pictures.quality for pictures in made]),
        measured=np.concatenate([pictures.measured for pictures in made]),
        kinds=np.concatenate([pictures.kinds for pictures in made]),
    )


def _variants(split: Split, index: int, of: Sequence[str]) -> Pictures:
    reference, rng = content(split, index), np.random.default_rng((9, index))
    pictures = Pictures(
        pixels=np.zeros((VARIANTS, SIDE, SIDE, 3), np.uint8),
        quality=np.zeros(VARIANTS, np.float32),
        measured=np.zeros(VARIANTS, np.float32),
        kinds=np.zeros((VARIANTS, len(KINDS)), np.bool_),
    )
    for variant in range(VARIANTS):
        count = int(rng.choice([0, 1, 2, 3], p=[0.06, 0.74, 0.15, 0.05]))
        kinds = [str(kind) for kind in rng.choice(of, count, replace=False)]
        damages = [(kind, int(rng.integers(1, 6 if count < 2 else 4))) for kind in kinds]
        damaged = damage(reference, damages, rng)
        pictures.pixels[variant] = np.asarray(damaged)
        pictures.quality[variant] = quality(damages)
        pictures.measured[variant] = measured_quality(damaged, reference)
        pictures.kinds[variant] = [kind in kinds for kind in KINDS]
    return pictures
