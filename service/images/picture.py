"""Decodes hostile image files to RGB pixels in sRGB, or raises InvalidImage without a decoder's error text.

Animations are refused, but not the previews that some cameras append (MPO). Transparency is composited on white.
Orientation is applied if it is readable. Colour profiles and CMYK are converted to sRGB, 16-bit channels scaled to 8
bits. Pictures are not resized here: the checkpoint's own image processor does that, within its pixel budget.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, ImageCms, ImageOps

from service.errors import InvalidImage, ProblemError
from service.extras import require
from service.images.structure import count_scans

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF")
MAX_SIDE_RATIO = 100
_MAX_JPEG_SCANS = 100
_MAX_SCANNED_PIXELS = 1_000_000_000
"""Pixels times scans: about a second of decoding. An ordinary progressive JPEG has some ten scans."""
_SRGB = ImageCms.createProfile("sRGB")
_DATA_URL = re.compile(r'\s*data:([^,"]*(?:"[^"]*"[^,"]*)*),', re.IGNORECASE)
"""With parameters, quoted ones included."""
_BASE64 = str.maketrans({"-": "+", "_": "/", **dict.fromkeys(" \t\r\n\v\f")})
_ESCAPED = {"%2B": "+", "%2F": "/", "%3D": "=", "%0A": "", "%0D": "", "%20": ""}
_LONGEST_TEXT = 1.5
"""Characters of base64 a byte: 4/3, and room for line breaks."""
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL, _TILE_WIDTH, _TILE_LENGTH, _PHOTOMETRIC = 258, 277, 322, 323, 262
_WHITE_IS_ZERO = 0
_MAX_PIXEL_BITS = 64

# Pillow's warnings about a stranger's file do not belong in the log, and Python remembers every new text for ever.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.simplefilter("error", Image.DecompressionBombWarning)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits that are checked before a pixel is decoded."""

    max_pixels: int
    min_side: int
    max_side: int = 16_384
    max_bytes: int = 20 * 2**20
    formats: tuple[str, ...] = FORMATS


def take_heif() -> tuple[str, ...]:
    """Registers HEIF with Pillow and returns the formats with it. Raises UserError if the extra is missing."""
    require("heif", "the setting heif")
    from pillow_heif import register_heif_opener

    register_heif_opener()
    return (*FORMATS, "HEIF")


def read_size(data: bytes, limits: Limits) -> tuple[int, int]:
    """Width and height in pixels, read from the header of an image file. Raises InvalidImage."""
    with _checked(data, limits) as picture:
        return picture.size


def decode(data: bytes, limits: Limits) -> Image.Image:
    """The picture of an image file as RGB. Raises InvalidImage.

    Decoding takes up to 24 bytes of memory a pixel: the format's own buffers, and copies in other modes.
    """
    with _checked(data, limits) as picture:
        picture.load()
        return _to_rgb(picture)


@contextlib.contextmanager
def _checked(data: bytes, limits: Limits) -> Iterator[Image.Image]:
    """Opens a picture and checks its header. Any failure inside the block becomes InvalidImage."""
    if len(data) > limits.max_bytes:
        raise _too_long(limits)
    try:
        scans = count_scans(data)
        with Image.open(io.BytesIO(data), formats=limits.formats) as picture:
            _check_header(picture, limits)
            _check_scans(scans, picture.width * picture.height)
            yield picture
    except ProblemError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(limits) from None
    except Exception:  # decoders raise nearly anything on hostile bytes, struct.error and MemoryError included
        raise InvalidImage(f"The bytes are not a complete image ({', '.join(limits.formats)}).") from None


def from_text(text: str, limits: Limits) -> bytes:
    """The bytes of an image file in base64 or in a data: URL, whose declared type is ignored. Raises InvalidImage.

    Both alphabets of RFC 4648 are read, with or without padding and line breaks.
    """
    prefix = _DATA_URL.match(text)
    if text.lstrip()[:5].lower() == "data:" and not (prefix and prefix[1].replace(" ", "").lower().endswith(";base64")):
        raise InvalidImage("A data: URL must look like data:image/png;base64,…")
    begin = prefix.end() if prefix else 0
    if len(text) - begin > _LONGEST_TEXT * limits.max_bytes + 4:
        raise _too_long(limits)
    plain = text[begin:]
    if prefix and "%" in plain:
        for escaped, letter in _ESCAPED.items():
            plain = plain.replace(escaped, letter).replace(escaped.lower(), letter)
    plain = plain.translate(_BASE64).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidImage("The image is not valid base64. If it is a URL, it begins with https://.") from None


def _check_header(picture: Image.Image, limits: Limits) -> None:
    width, height = picture.size
    if width * height > limits.max_pixels:
        raise _too_large(limits)
    if max(width, height) > limits.max_side:
        raise InvalidImage(f"The image is larger than {limits.max_side} pixels on a side.")
    if min(width, height) < limits.min_side:
        raise InvalidImage(f"The image is smaller than {limits.min_side} pixels on a side.")
    if max(width, height) > MAX_SIDE_RATIO * min(width, height):
        raise InvalidImage(f"The image is more than {MAX_SIDE_RATIO} times as long as it is wide.")
    if picture.format == "TIFF":
        _check_tiff(picture, limits)
    bits = getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))
    if picture.mode in {"I", "F"} or (picture.mode.startswith("I;16") and bits != (16,)):
        raise InvalidImage("Greyscale images must have 8 or 16 unsigned bits per pixel.")
    if picture.format != "MPO" and _has_second_frame(picture):
        raise InvalidImage("The image has several frames; send one.")


def _check_tiff(picture: Image.Image, limits: Limits) -> None:
    """Checks the tiles too: each is decoded whole, even if the picture shows little of it."""
    tags = picture.tag_v2  # type: ignore[attr-defined]  # the format is TIFF
    width, height = picture.size
    if tags.get(_TILE_WIDTH, width) * tags.get(_TILE_LENGTH, height) > limits.max_pixels:
        raise InvalidImage(f"The image has tiles of more than {limits.max_pixels} pixels.")
    if tags.get(_SAMPLES_PER_PIXEL, 1) * max(tags.get(_BITS_PER_SAMPLE, (1,))) > _MAX_PIXEL_BITS:
        raise InvalidImage(f"A pixel of the image has more than {_MAX_PIXEL_BITS} bits.")


def _has_second_frame(picture: Image.Image) -> bool:
    """True for several frames. Counting them all (`n_frames`) could take minutes in a hostile TIFF."""
    try:
        picture.seek(1)
    except EOFError:
        return False
    return True


def _check_scans(scans: int, pixels: int) -> None:
    """Refuses progressive JPEGs with many scans: a few megabytes of them can keep a decoder busy for an hour."""
    if scans > _MAX_JPEG_SCANS:
        raise InvalidImage(f"The image has more than {_MAX_JPEG_SCANS} scans; save it as a baseline JPEG.")
    if scans * pixels > _MAX_SCANNED_PIXELS:
        raise InvalidImage(f"The image has {scans} scans, too many for its size; save it as a baseline JPEG.")


def _too_long(limits: Limits) -> InvalidImage:
    return InvalidImage(f"The image file is longer than {limits.max_bytes} bytes.")


def _too_large(limits: Limits) -> InvalidImage:
    return InvalidImage(f"The image has more than {limits.max_pixels} pixels.")


def _to_rgb(picture: Image.Image) -> Image.Image:
    profile = picture.info.get("icc_profile")
    with contextlib.suppress(Exception):  # hostile EXIF; without a readable orientation the picture stays as it is
        ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode.startswith("I;16"):
        negative = getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO  # Pillow inverts 8 bits only
        picture = _to_8_bits(picture)
        picture = ImageOps.invert(picture) if negative else picture
    if picture.has_transparency_data:
        picture = _on_white(picture)
    if profile:
        picture = _to_srgb(picture.convert("RGB") if picture.mode == "P" else picture, profile)
    return picture.convert("RGB")


def _to_8_bits(picture: Image.Image) -> Image.Image:
    """Scales 16-bit values. `convert` would clip them, so that nearly every pixel would turn white."""
    return picture.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")


def _on_white(picture: Image.Image) -> Image.Image:
    """Composites on white. `convert("RGB")` would reveal the colours hidden under transparent pixels."""
    rgba = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _to_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """Converts from a colour profile; a broken or unsuitable profile is ignored."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(picture, source, _SRGB, outputMode="RGB") or picture
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return picture
