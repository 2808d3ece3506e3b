"""Pictures from anywhere: what is decoded, how, and what is refused."""

from __future__ import annotations

import base64
import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from service.errors import InvalidImage
from service.images.picture import Limits, decode, from_text, read_size, take_heif
from tests.hostile import tile_bomb
from tests.service.conftest import encoded, picture

LIMITS = Limits(max_pixels=1_000_000, min_side=28, max_side=900)


def decode_text(text: str, limits: Limits) -> Image.Image:
    return decode(from_text(text, limits), limits)


HALF_RED = Image.new("RGBA", (32, 32), (255, 0, 0, 128))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF"])
def test_known_formats_become_rgb(kind: str):
    image = decode(picture(200, kind=kind), LIMITS)
    assert (image.mode, image.size) == ("RGB", (32, 32))
    assert abs(image.getpixel((16, 16))[0] - 200) <= 4


def test_base64_is_the_same_picture():
    data = picture(77)
    assert decode_text(base64.b64encode(data).decode(), LIMITS).tobytes() == decode(data, LIMITS).tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGBA", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(mode: str):
    kind = "JPEG" if mode in {"CMYK", "YCbCr"} else "TIFF" if mode in {"LA", "PA"} else "PNG"
    source = Image.new("RGB", (32, 32), "white").convert(mode if mode != "PA" else "LA")
    image = decode(encoded(source, kind), LIMITS)
    assert image.mode == "RGB"
    assert min(image.getpixel((16, 16))) >= 250


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_not_clipped(kind: str):
    source = Image.fromarray(np.full((32, 32), 40000, np.uint16))
    assert decode(encoded(source, kind), LIMITS).getpixel((0, 0)) == (156, 156, 156)


def test_sixteen_bits_in_the_other_order_are_the_same():
    source = Image.frombytes("I;16B", (32, 32), np.full((32, 32), 40000, ">u2").tobytes())
    assert decode(encoded(source, "TIFF"), LIMITS).getpixel((0, 0)) == (156, 156, 156)


def test_transparency_is_composited_on_white():
    red, green, blue = decode(encoded(HALF_RED), LIMITS).getpixel((0, 0))
    assert red == 255 and 125 <= green == blue <= 129


def test_a_transparent_colour_of_a_palette_is_composited_on_white():
    source = Image.new("P", (32, 32), 0)
    source.putpalette([255, 0, 0] + [0] * 765)
    assert decode(encoded(source, transparency=0), LIMITS).getpixel((0, 0)) == (255, 255, 255)


def test_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(Image.new("RGB", (40, 60)), "JPEG", exif=exif), LIMITS).size == (60, 40)


def test_a_colour_profile_is_converted_and_a_broken_one_ignored():
    lab_like = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (lab_like, b"no profile at all"):
        assert abs(decode(picture(90, icc_profile=profile), LIMITS).getpixel((0, 0))[0] - 90) <= 1


def test_a_broken_orientation_is_no_orientation():
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff\x12\x01"
    assert decode(encoded(Image.new("RGB", (40, 60)), "JPEG", exif=exif), LIMITS).size == (40, 60)


def test_inks_become_colours():
    cyan = encoded(Image.new("CMYK", (32, 32), (255, 0, 0, 0)), "JPEG")
    red, green, blue = decode(cyan, LIMITS).getpixel((16, 16))
    assert red < 5 and min(green, blue) > 250


def test_the_preview_that_a_camera_appends_is_not_the_picture():
    source = Image.new("RGB", (64, 32), "red")
    photo = encoded(source, "MPO", save_all=True, append_images=[Image.new("RGB", (32, 32))])
    assert decode(photo, LIMITS).size == (64, 32)


@pytest.mark.parametrize("declared", ["png", "jpeg", "svg+xml", "x"])
def test_a_data_url_is_the_same_picture_whatever_type_it_declares(declared: str):
    data = picture(77)
    url = f"data:image/{declared};base64,{base64.b64encode(data).decode()}"
    assert decode_text(url, LIMITS).tobytes() == decode(data, LIMITS).tobytes()


def test_a_text_too_long_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch):
    small = replace(LIMITS, max_bytes=900)
    monkeypatch.setattr(base64, "b64decode", None)
    with pytest.raises(InvalidImage, match="longer than 900 bytes"):
        decode_text("A" * 1400, small)


def test_a_file_too_long_is_refused():
    data = picture()
    with pytest.raises(InvalidImage, match="longer than"):
        decode(data, replace(LIMITS, max_bytes=len(data) - 1))
    assert decode_text(base64.b64encode(data).decode(), replace(LIMITS, max_bytes=len(data))).size == (32, 32)


def test_heif_is_taken_where_it_is_wanted():
    formats = take_heif()
    photo = encoded(Image.new("RGB", (64, 64), (200, 10, 10)), "HEIF")
    with pytest.raises(InvalidImage):
        decode(photo, LIMITS)
    assert abs(decode(photo, replace(LIMITS, formats=formats)).getpixel((30, 30))[0] - 200) < 8


def test_the_memory_of_a_picture_is_known_from_its_header():
    assert read_size(picture(side=200)[:150], LIMITS) == (200, 200)


def test_decoding_takes_at_most_24_bytes_a_pixel():
    """The worst case: two buffers of WebP's own, a profile, an orientation, transparency."""
    grey = Image.radial_gradient("L").resize((2000, 2000)).convert("RGBA")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(grey, "WEBP", icc_profile=profile, exif=exif)
    script = """if True:
        import sys
        from service.images.picture import Limits, decode

        def most() -> int:
            return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

        data = sys.stdin.buffer.read()
        before = most()
        decode(data, Limits(max_pixels=4_000_000, min_side=28))
        print((most() - before) * 1024)
    """
    taken = int(subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, check=True).stdout)
    assert 4 * 4_000_000 < taken < 24 * 4_000_000


def _png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _text_bomb() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "x" * (2 * PngImagePlugin.MAX_TEXT_CHUNK), zip=True)
    return encoded(Image.new("RGB", (32, 32)), pnginfo=info)


def _animation() -> bytes:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    return encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])


def _truncated_jpeg() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    return encoded(Image.fromarray(noise), "JPEG")[:-600]


def _eps() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (32, 32)).save(stream, "EPS")
    return stream.getvalue()


def _scan_bomb() -> bytes:
    data = encoded(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * 200 + data[-2:]


def _tiff_chain() -> bytes:
    """A TIFF whose directories go on and on."""
    data = bytearray(encoded(Image.new("L", (32, 32)), "TIFF"))
    at = struct.unpack_from("<I", data, 4)[0]
    entries = struct.unpack_from("<H", data, at)[0]
    directory = bytes(data[at : at + 2 + entries * 12])
    link = at + len(directory)
    for _ in range(2000):
        struct.pack_into("<I", data, link, len(data))
        data += directory + bytes(4)
        link = len(data) - 4
    return bytes(data)


def _twelve_bits() -> bytes:
    data = bytearray(encoded(Image.fromarray(np.full((32, 32), 4000, np.uint16)), "TIFF"))
    entry = data.index(struct.pack("<HHI", 258, 3, 1))
    struct.pack_into("<H", data, entry + 8, 12)
    return bytes(data)


HOSTILE = {
    "nothing": b"",
    "no image": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "half a header": picture()[:20],
    "half a picture": picture(side=200)[:150],
    "half a JPEG": _truncated_jpeg(),
    "a bomb of 10 gigapixels": _png_header(100_000, 100_000),
    "more pixels than allowed": _png_header(2_000, 2_000),
    "a header without pixels": _png_header(100, 100),
    "no pixel at all": _png_header(0, 100),
    "one pixel": picture(side=1),
    "a thread": encoded(Image.new("RGB", (8, 880))),
    "a compressed text bomb": _text_bomb(),
    "a bomb of one tile": tile_bomb(7_000),
    "an animation": _animation(),
    "a bomb of scans": _scan_bomb(),
    "two thousand pages": _tiff_chain(),
    "a longer side than allowed": encoded(Image.new("1", (1000, 28))),
    "twelve bits": _twelve_bits(),
    "32-bit numbers": encoded(Image.new("I", (32, 32)), "TIFF"),
    "a data: URL of text": "data:text/plain;base64,aGVsbG8=",
    "a data: URL without base64": "data:image/png,hello",
    "a data: URL of nonsense": "data:image/png;base64,###",
    "GIF, which is off": encoded(Image.new("L", (32, 32)), "GIF"),
    "EPS, which is off": _eps(),
    "ICO, which is off": encoded(Image.new("RGB", (32, 32)), "ICO"),
    "floating point": encoded(Image.new("F", (32, 32)), "TIFF"),
    "no base64": "###",
    "base64 of nonsense": base64.b64encode(b"nonsense").decode(),
    "not ASCII": "ü" * 8,
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_input_is_refused_without_a_word_of_the_decoder(source: bytes | str):
    with pytest.raises(InvalidImage) as refusal:
        decode_text(source, LIMITS) if isinstance(source, str) else decode(source, LIMITS)
    assert "0x" not in refusal.value.detail and "BytesIO" not in refusal.value.detail


def test_every_cut_of_a_file_is_refused_or_decoded_but_never_an_accident():
    for kind in ("PNG", "WEBP", "TIFF", "BMP", "AVIF"):
        data = picture(kind=kind)
        for length in range(0, len(data), max(1, len(data) // 60)):
            try:
                decode(data[:length], LIMITS)
            except InvalidImage:
                continue


def test_flipped_bytes_never_cause_an_accident():
    noise = np.random.default_rng(1)
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP"):
        for _ in range(40):
            data = bytearray(picture(kind=kind))
            for position in noise.integers(0, len(data), 4):
                data[position] = noise.integers(0, 256)
            try:
                assert decode(bytes(data), LIMITS).mode == "RGB"
            except InvalidImage:
                continue


@pytest.mark.parametrize(("values", "brightness"), [(np.uint8(200), 200), (np.uint16(55 * 257), 200)])
def test_a_tiff_whose_white_is_zero_is_not_judged_as_its_negative(values: np.generic, brightness: int):
    """Pillow inverts 8 bits when it writes and when it reads, 16 bits never."""
    tiff = encoded(Image.fromarray(np.full((40, 40), values)), "TIFF", tiffinfo={262: 0})
    if Image.open(io.BytesIO(tiff)).tag_v2[262] != 0:  # Pillow writes its own
        tiff = tiff.replace(struct.pack("<HHLHH", 262, 3, 1, 1, 0), struct.pack("<HHLHH", 262, 3, 1, 0, 0))
    assert Image.open(io.BytesIO(tiff)).tag_v2[262] == 0
    assert decode(tiff, LIMITS).getpixel((0, 0)) == (brightness,) * 3


def _written(encode: Callable[[bytes], bytes]) -> str:
    return encode(picture(77)).decode()


TEXTS = {
    "as encodebytes breaks lines": _written(base64.encodebytes),
    "with carriage returns": _written(base64.encodebytes).replace("\n", "\r\n"),
    "url-safe": _written(base64.urlsafe_b64encode),
    "without padding": _written(base64.b64encode).rstrip("="),
    "url-safe, without padding": _written(base64.urlsafe_b64encode).rstrip("="),
    "with spaces around": f"  {_written(base64.b64encode)}\n",
    "a URL with parameters": f"data:image/png;charset=utf-8;base64,{_written(base64.b64encode)}",
    "a URL without a type": f"data:;base64,{_written(base64.b64encode)}",
    "a URL of any type": f"data:application/octet-stream;base64,{_written(base64.b64encode)}",
    "a URL in capitals": f"DATA:IMAGE/PNG;BASE64,{_written(base64.b64encode)}",
    "a URL with broken lines": f"data:image/png;base64,\n{_written(base64.encodebytes)}",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_base64_is_read_as_programs_write_it(kind: str):
    assert decode_text(TEXTS[kind], LIMITS).tobytes() == decode(picture(77), LIMITS).tobytes()
