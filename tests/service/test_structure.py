"""Files of countless parts, which cost a decoder more than pixels do: segments, chunks, strips, run lengths, scans."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import pytest
from PIL import Image

from service.errors import InvalidImage
from service.images.picture import decode, read_size
from service.images.structure import count_scans
from tests.service.conftest import encoded, picture
from tests.service.test_images import LIMITS

PHOTO = encoded(Image.effect_noise((64, 64), 60).convert("RGB"), "JPEG")
PROGRESSIVE = encoded(Image.effect_noise((64, 64), 60).convert("RGB"), "JPEG", progressive=True)


def segment(kind: int, content: bytes) -> bytes:
    return bytes([0xFF, kind]) + (len(content) + 2).to_bytes(2, "big") + content


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def tiff(order: str, strips: int, more: int = 0, big: bool = False) -> bytes:
    """A grey TIFF whose strips are all the same row, with `more` entries that mean nothing. `order` as in `struct`."""
    number, entry = ("Q", "HHQQ") if big else ("L", "HHLL")
    numbers = struct.calcsize(order + number)
    size = struct.calcsize(order + entry)
    fields = {256: 100, 257: 100, 258: 8, 259: 1, 262: 1, 277: 1, 278: 1} | {1000 + extra: 1 for extra in range(more)}
    begin = 16 if big else 8
    offsets = begin + (8 if big else 2) + (len(fields) + 2) * size + numbers
    rows = {273: (strips, offsets), 279: (strips, offsets + strips * numbers)}
    entries = [(tag, 4, 1, _first(order, number, value)) for tag, value in fields.items()]
    entries += [(tag, 16 if big else 4, *row) for tag, row in rows.items()]
    magic = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "H", 43 if big else 42)
    head = magic + (struct.pack(order + "HHQ", 8, 0, begin) if big else struct.pack(order + "L", begin))
    directory = struct.pack(order + ("Q" if big else "H"), len(entries))
    directory += b"".join(struct.pack(order + entry, *each) for each in sorted(entries)) + bytes(numbers)
    data = struct.pack(order + number, offsets) * strips + struct.pack(order + number, 100) * strips
    return head + directory + data


def _first(order: str, number: str, value: int) -> int:
    """A number of four bytes, left-justified in its field."""
    packed = struct.pack(order + "L", value).ljust(struct.calcsize(order + number), b"\0")
    return struct.unpack(order + number, packed)[0]


def run_lengths(side: int) -> bytes:
    """A square BMP in runs of one pixel."""
    runs = (b"\x01\x07" * side + b"\0\0") * side
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 0) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(runs), 0, 0, 14 + len(head)) + head + runs


def second_directory(strips: int) -> bytes:
    """A TIFF of two frames, of which the second has that many strips."""
    first = bytearray(tiff("<", 100))
    link = 8 + 2 + 9 * 12
    first[link : link + 4] = struct.pack("<L", len(first))
    return bytes(first) + struct.pack("<HHHLL", 1, 273, 4, strips, 8) + bytes(4)


BOMBS = {
    "strips": tiff("<", 200_000),
    "strips, the other order": tiff(">", 200_000),
    "strips of a large TIFF": tiff("<", 200_000, big=True),
    "strips of the second frame": second_directory(200_000),
    "entries": tiff("<", 100, more=5000),
    "run lengths": run_lengths(1500),
    "filling before a marker": PHOTO[:2] + b"\xff" * 500_000 + PHOTO[2:],
    "junk before a marker": PHOTO[:2] + b"\x00" * 500_000 + PHOTO[2:],
    "comments": PHOTO[:2] + segment(0xFE, b"") * 100_000 + PHOTO[2:],
    "application segments": PHOTO[:2] + segment(0xE1, b"x") * 50_000 + PHOTO[2:],
    "restart markers": PHOTO[:2] + b"\xff\xd0" * 100_000 + PHOTO[2:],
    "chunks of text": picture()[:33] + chunk(b"tEXt", b"a\0b") * 60_000 + picture()[33:],
    "empty chunks": picture()[:33] + chunk(b"teSt", b"") * 60_000 + picture()[33:],
    "scans": PROGRESSIVE[:-2] + PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2] * 100 + b"\xff\xd9",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_file_of_countless_parts_is_refused_before_a_decoder_counts_them(kind: str, monkeypatch: pytest.MonkeyPatch):
    if kind != "scans":
        monkeypatch.setattr(Image, "open", None)
    with pytest.raises(InvalidImage, match="has more than"):
        decode(BOMBS[kind], LIMITS)


def test_files_of_ordinary_parts_are_still_pictures():
    for data in (tiff("<", 100), tiff(">", 100), tiff("<", 100, big=True), tiff("<", 100, more=50)):
        assert decode(data, LIMITS).size == (100, 100)
    assert decode(run_lengths(800), LIMITS).size == (800, 800)


def test_scans_are_limited_by_the_size_of_the_picture():
    limits = replace(LIMITS, max_pixels=89_000_000, max_side=20_000)
    scans = PROGRESSIVE.count(b"\xff\xda")
    assert count_scans(PROGRESSIVE) == scans > 5
    assert read_size(PROGRESSIVE, limits) == (64, 64)
    frame = PROGRESSIVE.index(b"\xff\xc2") + 5  # behind marker, length and precision: height, width
    huge = PROGRESSIVE[:frame] + struct.pack(">HH", 9000, 9000) + PROGRESSIVE[frame + 4 :]
    more = huge[:-2] + huge[huge.rindex(b"\xff\xda") : -2] * 10 + b"\xff\xd9"
    assert read_size(huge, limits) == (9000, 9000)
    with pytest.raises(InvalidImage, match="too many for its size"):
        read_size(more, limits)


@pytest.mark.parametrize(
    "behind", [b"\xff\xda" * 5000, b"\x00" * 9_000_000, PROGRESSIVE * 20, b"MotionPhoto_Data" + b"\xff\xda\x00" * 9000]
)
@pytest.mark.parametrize("photo", [PHOTO, PROGRESSIVE])
def test_what_follows_the_end_of_a_photograph_does_not_count(photo: bytes, behind: bytes):
    """Motion photographs carry a film there."""
    assert decode(photo + behind, LIMITS).tobytes() == decode(photo, LIMITS).tobytes()
