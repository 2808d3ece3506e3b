"""The paper's augmentation: 35 distortion types at 5 levels, from the families of IQA datasets.

A distortion takes an image as float32 array (height, width, 3) in [0, 1], a level from 1 (barely visible) to 5
(severe) and a random generator, and returns an array of the same shape. Type and level are never labels: the model's
own votes say which picture looks better.

A level looks as severe in a large picture as in a small one that is shown as large: what has a size in pixels (a blur,
a grain, a shift, a codec's block) is given for a picture of `REFERENCE_SIDE`, and grows with the picture.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from trainer.pool.growing import Pixels, convolve, gaussian, grid, grown, growth, noise, stretched

Distortion = Callable[[Pixels, int, np.random.Generator], Pixels]
Family = Literal["blur", "noise", "compression", "resampling", "tone", "colour", "local", "structure"]

LEVELS = range(1, 6)
TYPES: dict[str, Distortion] = {}
FAMILIES: dict[Family, list[str]] = {}

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def distort(image: Image.Image, kind: str, level: int, rng: np.random.Generator) -> Image.Image:
    """Applies one distortion type to an RGB image.

    Raises:
        KeyError: `kind` is not in `TYPES`.
        ValueError: `level` is not 1 to 5.
    """
    if level not in LEVELS:
        raise ValueError(f"level {level} is not in 1..5")
    return to_image(TYPES[kind](to_pixels(image), level, rng))


def to_pixels(image: Image.Image) -> Pixels:
    """(height, width, 3) float32 in [0, 1]."""
    return np.asarray(image.convert("RGB"), dtype=np.float32) / 255


def to_image(pixels: Pixels) -> Image.Image:
    """The inverse of `to_pixels`, clipped and rounded to 8 bits."""
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))


def _register(family: Family) -> Callable[[Distortion], Distortion]:
    def add(function: Distortion) -> Distortion:
        TYPES[function.__name__] = function
        FAMILIES.setdefault(family, []).append(function.__name__)
        return function

    return add


def _at(level: int, *values: float) -> float:
    return values[level - 1]


def _luma(pixels: Pixels) -> Pixels:
    return (pixels @ _LUMA)[..., None]


def _codec(pixels: Pixels, **options: object) -> Pixels:
    buffer = io.BytesIO()
    to_image(pixels).save(buffer, **options)  # type: ignore[arg-type]
    return to_pixels(Image.open(buffer))


def _block_codec(pixels: Pixels, **options: object) -> Pixels:
    """A codec with blocks of 8 or 16 pixels, which grow with the picture: it is saved small, and enlarged."""
    small = stretched(pixels, grid(pixels), Image.Resampling.LANCZOS)
    return stretched(_codec(small, **options), pixels.shape, Image.Resampling.BICUBIC)


def _resize(pixels: Pixels, factor: float, down: Image.Resampling, up: Image.Resampling) -> Pixels:
    image = to_image(pixels)
    factor *= growth(pixels)
    small = (max(2, round(image.width / factor)), max(2, round(image.height / factor)))
    return to_pixels(image.resize(small, down).resize(image.size, up))


# Blur


@_register("blur")
def gaussian_blur(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    return gaussian(pixels, growth(pixels) * _at(level, 0.5, 0.8, 1.2, 1.8, 2.8))


@_register("blur")
def lens_blur(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    radius = growth(pixels) * _at(level, 0.8, 1.2, 1.8, 2.6, 4.0)
    reach = np.arange(-int(radius + 1), int(radius + 2))
    disk = np.clip(radius + 0.5 - np.hypot(*np.meshgrid(reach, reach)), 0, 1)
    return convolve(pixels, disk.astype(np.float32))


@_register("blur")
def motion_blur(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    length = int(growth(pixels) * _at(level, 3, 4, 6, 9, 13))
    angle = rng.uniform(0, np.pi)
    kernel = np.zeros((length + 2, length + 2), dtype=np.float32)
    middle = (length + 1) / 2
    for step in np.linspace(-length / 2, length / 2, 4 * length):
        kernel[round(middle + step * np.sin(angle)), round(middle + step * np.cos(angle))] += 1
    return convolve(pixels, kernel)


@_register("blur")
def glass_blur(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    reach = _at(level, 0.6, 1.0, 1.5, 2.2, 3.2)
    scattered = _displace(pixels, rng.uniform(-reach, reach, (2, *grid(pixels))))
    return gaussian(scattered, 0.4 * growth(pixels))


# Noise


@_register("noise")
def white_noise(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    return _add_noise(pixels, noise(pixels, rng), _at(level, 0.02, 0.04, 0.07, 0.12, 0.2))


@_register("noise")
def chroma_noise(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    grain = noise(pixels, rng).astype(np.float32)
    return _add_noise(pixels, grain - _luma(grain), _at(level, 0.03, 0.06, 0.1, 0.17, 0.28))


@_register("noise")
def impulse_noise(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    size = (*grid(pixels), 1)
    hit = rng.random(size) < _at(level, 0.004, 0.012, 0.03, 0.07, 0.15)
    return _over(np.where(hit, rng.integers(0, 2, size), np.nan), pixels)


@_register("noise")
def speckle_noise(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    return _add_noise(pixels, pixels * noise(pixels, rng), _at(level, 0.05, 0.1, 0.17, 0.28, 0.45))


@_register("noise")
def shot_noise(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    photons = _at(level, 500, 180, 70, 28, 11)
    small = stretched(pixels, grid(pixels), Image.Resampling.BOX)
    grain = grown(rng.poisson(small * photons) / photons - small, pixels)
    return (pixels + grain).astype(np.float32)


@_register("noise")
def correlated_noise(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    grain = grown(gaussian(rng.normal(size=(*grid(pixels), 3)).astype(np.float32), 1.2), pixels)
    return _add_noise(pixels, grain / grain.std(), _at(level, 0.02, 0.04, 0.065, 0.1, 0.16))


def _add_noise(pixels: Pixels, noise: NDArray[np.floating], scale: float) -> Pixels:
    return pixels + (scale * noise).astype(np.float32)


# Compression


@_register("compression")
def jpeg(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    return _block_codec(pixels, format="JPEG", quality=int(_at(level, 50, 30, 17, 9, 4)))


@_register("compression")
def jpeg2000(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    ratio = growth(pixels) ** 2 * _at(level, 12, 24, 45, 80, 140)  # as many bytes for every size
    return _codec(pixels, format="JPEG2000", quality_mode="rates", quality_layers=[ratio], irreversible=True)


@_register("compression")
def webp(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    return _block_codec(pixels, format="WEBP", quality=int(_at(level, 45, 25, 12, 5, 0)), method=2)


# Resampling


@_register("resampling")
def pixelate(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    return _resize(pixels, _at(level, 1.4, 2, 2.8, 4, 6), Image.Resampling.BOX, Image.Resampling.NEAREST)


@_register("resampling")
def bilinear_resample(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    bilinear = Image.Resampling.BILINEAR
    return _resize(pixels, _at(level, 1.4, 1.9, 2.6, 3.8, 5.5), bilinear, bilinear)


@_register("resampling")
def lanczos_resample(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    lanczos = Image.Resampling.LANCZOS
    return _resize(pixels, _at(level, 1.6, 2.2, 3.1, 4.5, 6.5), lanczos, lanczos)


@_register("resampling")
def aliasing(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    return _resize(pixels, _at(level, 1.3, 1.8, 2.5, 3.5, 5), Image.Resampling.NEAREST, Image.Resampling.BICUBIC)


# Tone


@_register("tone")
def brighten(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    return pixels + _at(level, 0.08, 0.16, 0.26, 0.38, 0.52)


@_register("tone")
def darken(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    return pixels ** _at(level, 1.3, 1.7, 2.3, 3.2, 4.5)


@_register("tone")
def contrast_loss(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    return _scale_around(pixels, pixels.mean(), _at(level, 0.8, 0.62, 0.46, 0.32, 0.2))


@_register("tone")
def contrast_excess(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    return _scale_around(pixels, pixels.mean(), _at(level, 1.3, 1.7, 2.3, 3.2, 5))


@_register("tone")
def haze(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    height, width = grid(pixels)
    fog = ndimage.gaussian_filter(rng.random((height, width, 1)).astype(np.float32), (width / 5, width / 5, 0))
    fog = stretched(fog, pixels.shape, Image.Resampling.BICUBIC)
    fog = (fog - fog.min()) / max(float(np.ptp(fog)), 1e-6)
    amount = _at(level, 0.15, 0.28, 0.42, 0.58, 0.75) * (0.6 + 0.4 * fog)
    return pixels * (1 - amount) + 0.9 * amount


@_register("tone")
def vignette(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, side) for side in pixels.shape[:2]), indexing="ij")
    fall = _at(level, 0.25, 0.45, 0.65, 0.85, 1.05) * (rows**2 + columns**2)
    return pixels * np.clip(1 - fall, 0, 1)[..., None].astype(np.float32)


# Colour


@_register("colour")
def desaturate(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    return _scale_around(pixels, _luma(pixels), _at(level, 0.75, 0.55, 0.35, 0.18, 0.0))


@_register("colour")
def oversaturate(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    return _scale_around(pixels, _luma(pixels), _at(level, 1.5, 2.1, 3, 4.2, 6))


@_register("colour")
def hue_shift(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    angle = np.deg2rad(_at(level, 12, 25, 45, 75, 120)) * rng.choice([-1, 1])
    axis = np.full(3, 3**-0.5)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross  # Rodrigues
    return pixels @ turn.T.astype(np.float32)


@_register("colour")
def colour_cast(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    gains = 1 + _at(level, 0.08, 0.16, 0.28, 0.42, 0.6) * rng.permutation([1.0, 0.0, -1.0])
    return pixels * gains.astype(np.float32)


@_register("colour")
def posterise(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    steps = _at(level, 15, 9, 6, 4, 2)
    return np.round(pixels * steps) / steps


# Local damage


@_register("local")
def block_loss(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    damaged = pixels.copy()
    for rows, columns in _blocks(pixels, int(_at(level, 2, 4, 7, 12, 20)), rng):
        damaged[rows, columns] = rng.random(3)
    return damaged


@_register("local")
def patch_shift(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    damaged = pixels.copy()
    for rows, columns in _blocks(pixels, int(_at(level, 4, 8, 14, 24, 40)), rng):
        shift = (rng.integers(4, 12, 2) * growth(pixels)).astype(int)
        damaged[rows, columns] = np.roll(pixels, shift, axis=(0, 1))[rows, columns]
    return damaged


@_register("local")
def row_loss(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    height, _ = grid(pixels)
    rows = rng.choice(height, max(1, round(height * _at(level, 0.02, 0.04, 0.08, 0.15, 0.28))), replace=False)
    lost = np.full((height, 1, 1), np.nan)
    lost[rows] = rng.random((len(rows), 1, 1))
    return _over(lost, pixels)


def _over(values: Pixels, pixels: Pixels) -> Pixels:
    """The picture under sharply enlarged values, of which NaN shows the picture."""
    shape = tuple(full if there > 1 else 1 for full, there in zip(pixels.shape[:2], values.shape[:2], strict=True))
    enlarged = stretched(values, shape, Image.Resampling.NEAREST)
    return np.where(np.isnan(enlarged), pixels, enlarged).astype(np.float32)


def _blocks(pixels: Pixels, count: int, rng: np.random.Generator) -> list[tuple[slice, slice]]:
    """`count` random squares, a twelfth of the picture wide."""
    side = max(4, min(pixels.shape[:2]) // 12)
    corners = rng.integers(0, np.array(pixels.shape[:2]) - side + 1, (count, 2))
    return [(slice(row, row + side), slice(column, column + side)) for row, column in corners]


# Structure


@_register("structure")
def pixel_jitter(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    reach = _at(level, 0.7, 1.2, 2, 3.2, 5)
    field = ndimage.gaussian_filter(rng.normal(size=(2, *grid(pixels))), (0, 2, 2))
    return _displace(pixels, reach * field / field.std())


@_register("structure")
def oversharpen(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    return pixels + _at(level, 0.8, 1.6, 2.8, 4.5, 7.5) * (pixels - gaussian(pixels, 1.2 * growth(pixels)))


@_register("structure")
def ghosting(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    shift = np.round(growth(pixels) * _at(level, 2, 3, 4, 6, 8) * np.array([rng.uniform(-0.5, 0.5), 1])).astype(int)
    weight = _at(level, 0.15, 0.22, 0.3, 0.38, 0.48)
    return (1 - weight) * pixels + weight * np.roll(pixels, shift, axis=(0, 1))


@_register("structure")
def stripes(pixels: Pixels, level: int, rng: np.random.Generator) -> Pixels:
    angle, period = rng.uniform(0, np.pi), rng.uniform(3, 7) * growth(pixels)
    rows, columns = np.indices(pixels.shape[:2])
    wave = np.sin(2 * np.pi * (rows * np.sin(angle) + columns * np.cos(angle)) / period)
    return _add_noise(pixels, wave[..., None], _at(level, 0.03, 0.06, 0.1, 0.16, 0.25))


def _displace(pixels: Pixels, field: NDArray[np.floating]) -> Pixels:
    """Reads each pixel from where `field` (2, height, width) points, in pixels of the picture's `grid`."""
    moved = grown(np.moveaxis(field, 0, -1), pixels) * growth(pixels)
    where = np.indices(pixels.shape[:2]) + np.moveaxis(moved, -1, 0)
    return np.stack(
        [ndimage.map_coordinates(pixels[..., c], where, order=1, mode="reflect") for c in range(3)], axis=-1
    ).astype(np.float32)


def _scale_around(pixels: Pixels, centre: Pixels | np.floating, factor: float) -> Pixels:
    return centre + (pixels - centre) * factor
