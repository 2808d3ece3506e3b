"""Originals with more pixels than a round takes, scaled down before anything is made of them."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.files import writing
from trainer.pool.image import PoolImage, content_id
from trainer.pool.pool import Pool


def scaled(original: PoolImage, folder: Path, *, pixels: int, min_side: int) -> PoolImage:
    """The original as it is or, if it has more than so many pixels, a smaller one: a PNG in `folder`, in whose place
    a copy that lies there is removed.

    Raises:
        OSError, ValueError: the original's file is gone, or has changed since it was drawn.
        DiskFull: the file could not be written.
    """
    with Image.open(original.path) as header:
        if header.width * header.height <= pixels:
            return original
    data = _png(shrunk(Pool([original]).open(original.id), pixels, min_side))
    content = content_id(data)
    file = folder.absolute() / content
    with writing(file):
        file.write_bytes(data)
    if Path(original.path).parent == file.parent:
        Path(original.path).unlink()
    return PoolImage(content, str(file), content)


def shrunk(picture: Image.Image, pixels: int, min_side: int) -> Image.Image:
    """The picture at `pixels` at most, by Lanczos' filter; at more only where a side would be below `min_side`."""
    side = min(picture.size)
    shorter = max(min_side, math.floor(side * math.sqrt(pixels / (picture.width * picture.height))))
    width, height = (length * shorter // side for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _png(picture: Image.Image) -> bytes:
    """Without the metadata that pictures carry along: a profile would be applied again by whoever opens the file."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(picture)).save(file, "PNG")
    return file.getvalue()
