"""Files as phones make them: JPEGs of 12 megapixels with noise, most of them turned by their EXIF orientation."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageChops

SIZE = 4032, 3024
_OCTAVES = (6, 24, 96, 384)
_TILE = 1008
_NOISE = 9.0
_ORIENTATION, _ORIENTATIONS = 0x0112, (1, 6, 8, 3)
_MAKE, _MODEL = 0x010F, 0x0110


def photograph(number: int) -> bytes:
    """Photograph `number`: shapes at four scales, sensor noise, about four megabytes."""
    random = np.random.default_rng((12, number))
    picture = Image.new("RGB", SIZE, (128, 128, 128))
    for cells in _OCTAVES:
        coarse = Image.fromarray(random.integers(0, 256, (cells * 3 // 4, cells, 3), np.uint8))
        picture = Image.blend(picture, coarse.resize(SIZE, Image.Resampling.BICUBIC), 0.35)
    picture = ImageChops.add(picture, _noise(random), offset=-128)
    exif = Image.Exif()
    exif[_ORIENTATION], exif[_MAKE], exif[_MODEL] = _ORIENTATIONS[number % 4], "Phone", "Twelve"
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=88, exif=exif)
    return stream.getvalue()


def _noise(random: np.random.Generator) -> Image.Image:
    tile = Image.fromarray(random.normal(128, _NOISE, (_TILE, _TILE, 3)).clip(0, 255).astype(np.uint8))
    whole = Image.new("RGB", SIZE)
    for left in range(0, SIZE[0], _TILE):
        for top in range(0, SIZE[1], _TILE):
            whole.paste(tile, (left, top))
    return whole
