"""Small pictures that a page holds in itself."""

from __future__ import annotations

import base64
import io

from PIL import Image

_SIDE = 176


def thumbnail(picture: Image.Image) -> str:
    """A data: URL of the picture, scaled down."""
    small, file = picture.convert("RGB"), io.BytesIO()
    small.thumbnail((_SIDE, _SIDE))
    small.save(file, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
