"""Distortions that look alike at every size of a picture: what has a size in pixels grows with the picture.

It is given for a square of `REFERENCE_SIDE`; a picture of a megapixel has nine times longer sides. Random values are
drawn on the picture's `grid`, which has the reference's size, and stretched over the picture.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, signal

Pixels = NDArray[np.floating]

REFERENCE_SIDE = 112
"""Of the square whose area counts; smaller pictures are treated as this one."""

_SMALL_KERNEL, _SMALL_SIGMA = 31, 8.0
"""Up to these sizes, in pixels, a direct convolution is the fastest, and the most exact."""


def growth(pixels: Pixels) -> float:
    """How many times longer the picture's sides are than those of the reference."""
    return max(1.0, math.sqrt(pixels.shape[0] * pixels.shape[1]) / REFERENCE_SIDE)


def grid(pixels: Pixels) -> tuple[int, int]:
    """Height and width of the picture, shrunk to the reference's size."""
    height, width = (max(1, round(side / growth(pixels))) for side in pixels.shape[:2])
    return height, width


def stretched(field: Pixels, shape: tuple[int, ...], filter: Image.Resampling) -> Pixels:
    """(height, width, channels) values, resized to the height and width of `shape`."""
    if field.shape[:2] == shape[:2]:
        return field
    size = (shape[1], shape[0])
    planes = (Image.fromarray(plane.astype(np.float32)).resize(size, filter) for plane in np.moveaxis(field, -1, 0))
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def grown(field: Pixels, pixels: Pixels) -> Pixels:
    """Values on the picture's `grid`, as smooth values of the same spread on the picture itself."""
    smooth = stretched(field, pixels.shape, Image.Resampling.BICUBIC)
    return field if smooth is field else smooth * (field.std() / max(float(smooth.std()), 1e-6))


def noise(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """(height, width, 3) normal noise whose grain grows with the picture."""
    return grown(rng.normal(size=(*grid(pixels), 3)), pixels)


def gaussian(pixels: Pixels, sigma: float) -> Pixels:
    """Blurs by `sigma` pixels; large ones on a picture that was made smaller by a box, which loses nothing visible."""
    factor = int(sigma / _SMALL_SIGMA * 2) if sigma > _SMALL_SIGMA else 1
    height, width = (math.ceil(side / factor) for side in pixels.shape[:2])
    small = stretched(pixels, (height, width), Image.Resampling.BOX)
    blurred = ndimage.gaussian_filter(small, (sigma * height / pixels.shape[0], sigma * width / pixels.shape[1], 0))
    return stretched(blurred, pixels.shape, Image.Resampling.BICUBIC)


def convolve(pixels: Pixels, kernel: NDArray[np.float32]) -> Pixels:
    """Convolves each channel with a square kernel, whose sum becomes 1; large ones by Fourier transforms."""
    weights = (kernel / kernel.sum())[..., None]
    if len(kernel) <= _SMALL_KERNEL:
        return ndimage.convolve(pixels, weights, mode="reflect")
    around = len(kernel) // 2
    padded = np.pad(pixels, ((around, len(kernel) - 1 - around),) * 2 + ((0, 0),), mode="symmetric")
    return signal.oaconvolve(padded, weights, mode="valid", axes=(0, 1)).astype(np.float32)
