"""Labelled pictures for training the embedded checkpoint, and the measure behind the demo's ground truth.

A full-reference measure gives the damage of one picture (`severity`), structural plus colour damage, comparable across
distortion types:

- structure: gradient magnitude similarity deviation (GMSD, Xue et al. 2014, constant 0.0026 on [0, 1]) of the
  luminance at full and at half resolution, averaged, over 0.15 (a strongly visible value);
- colour and tone: the mean CIE76 difference of the two pictures smoothed by a Gaussian of 3 pixels, over 20.

`python -m tests.benchmarks.checkpoint.pictures` writes the means of each type and level into `severities.json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2lab

from trainer.demo.contents import SIDE, Split, content
from trainer.demo.truth import KINDS, TABLE, damage, quality
from trainer.pool.distortions import LEVELS, TYPES, Pixels, distort, to_pixels

_GMS_CONSTANT = 0.0026
CALIBRATION_CONTENTS = range(900_000, 900_048)
VARIANTS = 12
"""Number of pictures made from each content."""


def measured_quality(distorted: Image.Image, reference: Image.Image) -> float:
    """Full-reference quality of one picture on the same scale."""
    return 1 + 4 * math.exp(-severity(to_pixels(distorted), to_pixels(reference)))


def calibrate(kind: str, contents: Iterable[int]) -> list[float]:
    """Mean severity of a distortion type at each level, over contents of the `train` split."""
    references = [(index, content("train", index)) for index in contents]
    means = []
    for level in LEVELS:
        damaged = [distort(r, kind, level, np.random.default_rng((level, n))) for n, r in references]
        pairs = zip(damaged, references, strict=True)
        means.append(float(np.mean([severity(to_pixels(d), to_pixels(r)) for d, (_, r) in pairs])))
    return means


def severity(distorted: Pixels, reference: Pixels) -> float:
    """0 for equal pictures; about 1 for clearly visible damage."""
    return _structural_damage(distorted, reference) + _colour_damage(distorted, reference)


def _structural_damage(distorted: Pixels, reference: Pixels) -> float:
    lumas = distorted.mean(-1), reference.mean(-1)
    halves = tuple(ndimage.uniform_filter(luma, 2)[::2, ::2] for luma in lumas)
    return (_gmsd(*lumas) + _gmsd(*halves)) / 2 / 0.15


def _gmsd(distorted: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    one, other = _gradient(distorted), _gradient(reference)
    similarity = (2 * one * other + _GMS_CONSTANT) / (one**2 + other**2 + _GMS_CONSTANT)
    return float(similarity.std())


def _gradient(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.hypot(ndimage.prewitt(luma, 0), ndimage.prewitt(luma, 1)) / 3


def _colour_damage(distorted: Pixels, reference: Pixels) -> float:
    smooth = [ndimage.gaussian_filter(rgb2lab(pixels), (3, 3, 0)) for pixels in (distorted, reference)]
    return float(np.linalg.norm(smooth[0] - smooth[1], axis=-1).mean()) / 20


@dataclass(slots=True)
class Pictures:
    """N labelled pictures."""

    pixels: NDArray[np.uint8]
    """(N, 112, 112, 3)."""
    quality: NDArray[np.float32]
    """(N,) true quality, 1 to 5, see `quality`."""
    measured: NDArray[np.float32]
    """(N,) full-reference quality of each picture, 1 to 5."""
    kinds: NDArray[np.bool_]
    """(N, 35) distortion types of each picture."""


def make_pictures(split: Split, contents: range, workers: int, kinds: Sequence[str] = KINDS) -> Pictures:
    """`VARIANTS` pictures of each content: mostly one distortion of `kinds`, some mixtures, some undamaged."""
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


if __name__ == "__main__":
    table = {kind: [round(value, 4) for value in calibrate(kind, CALIBRATION_CONTENTS)] for kind in TYPES}
    TABLE.write_text(json.dumps(table, indent=0) + "\n")
