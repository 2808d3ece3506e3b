"""Bytes from anywhere to RGB pixels in sRGB, or InvalidImage. Nothing of a decoder's error text gets out.

Animations are refused; transparency is composited on white; orientation is applied; colour profiles and CMYK
are converted to sRGB; 16-bit channels are scaled to 8 bits. Pictures are not resized here: the checkpoint's
own image processor does that, within its pixel budget.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from PIL import Image, ImageCms, ImageOps

from service.errors import InvalidImage
from service.stages import stage

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF")
_MAX_SIDE_RATIO = 100
_SRGB = ImageCms.createProfile("sRGB")


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused before a pixel is decoded."""

    max_pixels: int
    min_side: int


class Picture:
    """An image file: known by its digest, decoded when its pixels are first asked for."""

    def __init__(self, digest: str, decode: Callable[[], Awaitable[Image.Image]]) -> None:
        self.digest = digest
        self._decode = decode
        self._pixels: Image.Image | None = None

    async def pixels(self) -> Image.Image:
        """The picture in RGB, decoded once. Raises InvalidImage."""
        if self._pixels is None:
            with stage("decode"):
                self._pixels = await self._decode()
        return self._pixels

    def release(self) -> None:
        """Lets the pixels go, for those who keep many pictures."""
        self._pixels = None


class Decoder:
    """Decodes off the event loop, only so many at a time: threads times pixels bound the memory."""

    def __init__(self, limits: Limits, threads: int) -> None:
        self._limits = limits
        self._slots = asyncio.Semaphore(threads)

    async def open(self, source: bytes | str) -> Picture:
        """The picture in a file's bytes, or in their base64 text, not decoded yet.

        Raises InvalidImage if the text is no base64.
        """
        data, digest = await asyncio.to_thread(_read, source)
        return Picture(digest, lambda: self._decode(data))

    async def __call__(self, source: bytes | str) -> Image.Image:
        """The picture in a file's bytes, or in their base64 text, as RGB. Raises InvalidImage."""
        picture = await self.open(source)
        return await picture.pixels()

    async def _decode(self, data: bytes) -> Image.Image:
        async with self._slots:
            return await asyncio.to_thread(decode, data, self._limits)


def decode(source: bytes | str, limits: Limits) -> Image.Image:
    """The picture in a file's bytes, or in their base64 text, as RGB. Raises InvalidImage."""
    data = _bytes(source)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            _check_header(picture, limits)
            picture.load()
            return _to_rgb(picture)
    except InvalidImage:
        raise
    except Image.DecompressionBombError:
        raise _too_large(limits) from None
    except Exception:  # decoders raise nearly anything on hostile bytes, struct.error and TypeError included
        raise InvalidImage(f"The bytes are no complete image ({', '.join(FORMATS)}).") from None


def _read(source: bytes | str) -> tuple[bytes, str]:
    data = _bytes(source)
    return data, hashlib.sha256(data).hexdigest()


def _bytes(source: bytes | str) -> bytes:
    return _from_base64(source) if isinstance(source, str) else source


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidImage("The image is not valid base64.") from None


def _check_header(picture: Image.Image, limits: Limits) -> None:
    width, height = picture.size
    if width * height > limits.max_pixels:
        raise _too_large(limits)
    if min(width, height) < limits.min_side:
        raise InvalidImage(f"The image is smaller than {limits.min_side} pixels on a side.")
    if max(width, height) > _MAX_SIDE_RATIO * min(width, height):
        raise InvalidImage(f"The image is more than {_MAX_SIDE_RATIO} times as long as it is wide.")
    if getattr(picture, "n_frames", 1) > 1:
        raise InvalidImage("The image has several frames; send one.")


def _too_large(limits: Limits) -> InvalidImage:
    return InvalidImage(f"The image has more than {limits.max_pixels} pixels.")


def _to_rgb(picture: Image.Image) -> Image.Image:
    profile = picture.info.get("icc_profile")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _to_8_bits(picture)
    if picture.has_transparency_data:
        picture = _on_white(picture)
    if profile and picture.mode in {"RGB", "CMYK", "L"}:
        picture = _to_srgb(picture, profile)
    return picture.convert("RGB")


def _to_8_bits(picture: Image.Image) -> Image.Image:
    """Scales 16-bit values: `convert` would clip them, and nearly every pixel would turn white."""
    if picture.mode == "F":
        raise InvalidImage("Floating-point images are not accepted; their range is unknown.")
    return picture.convert("I").point(lambda value: value * (1 / 257)).convert("L")


def _on_white(picture: Image.Image) -> Image.Image:
    """`convert("RGB")` would reveal the colours hidden under transparent pixels."""
    rgba = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _to_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(picture, source, _SRGB, outputMode="RGB") or picture
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return picture
