"""The ground truth of the synthetic benchmarks: a full-reference measure of how far a picture was damaged.

Severity = structural damage + colour damage, so that it means the same thing across distortion types:

- structure: gradient magnitude similarity deviation (GMSD, Xue et al. 2014, constant 0.0026 on [0, 1]) of the
  luminance at full and at half resolution, averaged, over 0.15 (a strongly visible value);
- colour and tone: the mean CIE76 difference of the two pictures smoothed by a Gaussian of 3 pixels, over 20.

Quality is 1 + 4 exp(-severity): 5 for an untouched picture, near 1 for a ruined one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2lab

from trainer.distortions import Pixels, to_pixels

_GMS_CONSTANT = 0.0026


def quality(distorted: Image.Image, reference: Image.Image) -> float:
    """The ground truth of `distorted`, between 1 and 5, against the undistorted picture of the same size."""
    return 1 + 4 * float(np.exp(-severity(to_pixels(distorted), to_pixels(reference))))


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
