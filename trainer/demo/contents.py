"""Undistorted pictures for the demo: procedural scenes, and photographs from scikit-image's and scikit-learn's wheels.

The splits share no content. `train` (for the embedded checkpoint) and `pool` (for evolution) use the left part of each
photograph, `benchmark` (for evaluation) only the right part. Scenes use separate seeds for each split. A picture is a
function of only its split and index.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import skimage.data
import sklearn.datasets
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Split = Literal["train", "pool", "benchmark"]
SIDE = 112

PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "china.jpg",
    "coffee.png",
    "coins.png",
    "flower.jpg",
    "grass.png",
    "gravel.png",
    "ihc.png",
    "motorcycle_left.png",
    "page.png",
    "text.png",
)
BOUNDARY = 0.62
"""Cut of a photograph, as a share of its width: `train` and `pool` use the left part, `benchmark` the right one."""
LEAST_DETAIL = 0.03
"""Pictures with less detail are drawn again, since damage would not show."""
_SEED: dict[Split, int] = {"train": 1, "pool": 2, "benchmark": 3}


def content(split: Split, index: int) -> Image.Image:
    """Undistorted picture number `index` of a split: RGB, 112 x 112."""
    rng = np.random.default_rng((_SEED[split], index))
    picture = _photograph_crop(split, rng) if rng.random() < 0.5 else _scene(rng)
    while _detail(picture) < LEAST_DETAIL:
        picture = _photograph_crop(split, rng) if rng.random() < 0.5 else _scene(rng)
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return picture


def _detail(picture: Image.Image) -> float:
    """Mean absolute difference of neighbouring pixels, vertical plus horizontal, for values in [0, 1]."""
    luma = np.asarray(picture, dtype=np.float32).mean(-1) / 255
    return float(np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean())


@cache
def _photograph(name: str) -> Image.Image:
    folders = (Path(skimage.data.__file__).parent, Path(sklearn.datasets.__file__).parent / "images")
    path = next(folder / name for folder in folders if (folder / name).is_file())
    return Image.open(path).convert("RGB")


def _photograph_crop(split: Split, rng: np.random.Generator) -> Image.Image:
    """A random square from the split's part of a photograph, scaled down (never up) and slightly recoloured."""
    photograph = _photograph(str(rng.choice(PHOTOGRAPHS)))
    cut = int(photograph.width * BOUNDARY)
    start, stop = (cut, photograph.width) if split == "benchmark" else (0, cut)
    side = int(rng.uniform(SIDE, min(stop - start, photograph.height, 2.5 * SIDE)))
    left = int(rng.integers(start, stop - side + 1))
    top = int(rng.integers(0, photograph.height - side + 1))
    crop = photograph.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return _tinted(np.asarray(crop, dtype=np.float32) / 255, rng)


def _tinted(pixels: NDArray[np.floating], rng: np.random.Generator) -> Image.Image:
    """Varies exposure and colour within the range of good photographs; grey pictures become duotones."""
    if np.abs(pixels - pixels.mean(-1, keepdims=True)).max() < 0.02:
        dark, light = rng.uniform(0, 0.35, 3), rng.uniform(0.65, 1, 3)
        pixels = dark + (light - dark) * pixels
    pixels = pixels ** rng.uniform(0.75, 1.3) * rng.uniform(0.9, 1.1, 3)
    return Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8))


def _scene(rng: np.random.Generator) -> Image.Image:
    """A "dead leaves" scene of occluding textured shapes, which has the statistics of natural images; drawn at 2x."""
    side = 2 * SIDE
    pixels = _texture(side, rng)
    for _ in range(int(rng.integers(3, 40))):
        mask = Image.new("L", (side, side))
        _leaf(ImageDraw.Draw(mask), side, rng)
        shape = np.asarray(mask, dtype=np.float32)[..., None] / 255
        pixels = pixels * (1 - shape) + _texture(side, rng) * shape
    picture = Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8))
    return picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _leaf(draw: ImageDraw.ImageDraw, side: int, rng: np.random.Generator) -> None:
    x, y = rng.uniform(0, side, 2)
    size = 8 / rng.uniform(0.04, 1) ** 0.9 + 4  # a power law of sizes
    shape = rng.integers(4)
    if shape == 0:
        draw.ellipse((x - size, y - size * 0.7, x + size, y + size * 0.7), fill=255)
    elif shape == 1:
        draw.rectangle((x - size, y - size * 0.6, x + size, y + size * 0.6), fill=255)
    elif shape == 2:
        corners = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
        draw.polygon([(x + size * np.cos(a), y + size * np.sin(a)) for a in corners], fill=255)
    else:
        end = rng.uniform(0, side, 2)
        draw.line((x, y, *end), fill=255, width=int(rng.integers(1, 8)))


def _texture(side: int, rng: np.random.Generator) -> NDArray[np.floating]:
    """(side, side, 3): a colour gradient with 1/f noise or a grating on it."""
    base, slope = rng.uniform(0.1, 0.9) + rng.normal(0, 0.13, 3), rng.normal(0, 0.12, (2, 3))
    rows, columns = np.meshgrid(*2 * (np.linspace(-1, 1, side),), indexing="ij")
    pixels = base + rows[..., None] * slope[0] + columns[..., None] * slope[1]
    kind = rng.integers(3)
    if kind == 0:
        pixels = pixels + rng.uniform(0.02, 0.2) * _pink(side, rng)[..., None] * rng.uniform(0.5, 1, 3)
    elif kind == 1:
        angle, period = rng.uniform(0, np.pi), rng.uniform(6, 40)
        wave = np.sin(2 * np.pi * side / 2 * (rows * np.sin(angle) + columns * np.cos(angle)) / period)
        pixels = pixels + rng.uniform(0.03, 0.2) * wave[..., None] * rng.uniform(0.3, 1, 3)
    return pixels.astype(np.float32)


def _pink(side: int, rng: np.random.Generator) -> NDArray[np.floating]:
    """1/f noise of unit deviation, summed over octaves."""
    total = np.zeros((side, side), dtype=np.float32)
    for octave in (4, 8, 16, 32, 64):
        coarse = Image.fromarray(rng.normal(size=(octave, octave)).astype(np.float32))
        total += np.asarray(coarse.resize((side, side), Image.Resampling.BILINEAR)) * (4 / octave)
    return total / total.std()
