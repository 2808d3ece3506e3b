"""Pictures that no engine has seen before: caches shall not answer for the model."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

SIDE = 112


def fresh(count: int, seed: int) -> list[bytes]:
    """PNG files of smooth colours with noise, 112 pixels a side."""
    random = np.random.default_rng(seed)
    return [_png(random, coarseness=4 + index % 24) for index in range(count)]


def _png(random: np.random.Generator, coarseness: int) -> bytes:
    coarse = random.integers(0, 256, (coarseness, coarseness, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
