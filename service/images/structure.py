"""The structure of an image file, walked before Pillow opens it.

Pillow parses segments, chunks, strips and runs in Python, and a JPEG decoder passes over the picture once for each
scan. So a few megabytes of filling or of tiny parts can keep it busy for minutes. This walk limits their numbers first.
"""

from __future__ import annotations

import re
import struct

from service.errors import InvalidImage

MAX_SEGMENTS = 4096
"""Of a JPEG. A 20 MiB file full of extended metadata has some 320."""
MAX_FILLING = 64 * 1024
"""Bytes between the segments of a JPEG that belong to none."""
MAX_CHUNKS = 50_000
"""Of a PNG. A 20 MiB file has some 2,600 of the usual size."""

MAX_ENTRIES, MAX_STRIPS = 4096, 100_000
"""Of a directory of a TIFF. Strips of one row are at most 65,536, with four planes of the highest picture."""
MAX_RUN_BYTES = 4 * 2**20
"""Of a run-length encoded BMP, which only old programs write."""

_MARKER = re.compile(rb"\xff([^\x00\xff])")
_BEHIND_ENTROPY = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324
_RUN_LENGTHS = (1, 2)
_PNG = b"\x89PNG\r\n\x1a\n"


def count_scans(data: bytes) -> int:
    """The scans of a JPEG (ITU-T T.81, annex B); 0 for another format.

    Counts up to the end of the first image. What follows, such as the film of a motion photograph, is ignored. A broken
    structure ends the walk, and decoding finds the fault. Raises InvalidImage for more parts than an ordinary file has.
    """
    if data.startswith(_PNG):
        _check_chunks(data)
    elif data[:2] in (b"II", b"MM"):
        _check_directories(data)
    elif data.startswith(b"BM") and int.from_bytes(data[30:34], "little") in _RUN_LENGTHS and len(data) > MAX_RUN_BYTES:
        raise _too_many(MAX_RUN_BYTES, "bytes of run lengths")
    return _walk_jpeg(data) if data.startswith(b"\xff\xd8") else 0


def _walk_jpeg(data: bytes) -> int:
    scans = segments = filling = 0
    position = 2
    while marker := _MARKER.search(data, position):
        filling += marker.start() - position
        segments += 1
        if segments > MAX_SEGMENTS:
            raise _too_many(MAX_SEGMENTS, "segments")
        if filling > MAX_FILLING:
            raise _too_many(MAX_FILLING, "padding bytes")
        kind, position = marker[1][0], marker.end()
        if kind == _END_OF_IMAGE:
            break
        if kind in _WITHOUT_LENGTH:
            continue
        position += int.from_bytes(data[position : position + 2], "big")
        if kind == _START_OF_SCAN:
            scans += 1
            end = _BEHIND_ENTROPY.search(data, position)
            position = end.start() if end else len(data)
    return scans


def _check_chunks(data: bytes) -> None:
    position = len(_PNG)
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data) or data[position + 4 : position + 8] == b"IEND":
            return
        position += int.from_bytes(data[position : position + 4], "big") + 12  # length, type, checksum
    raise _too_many(MAX_CHUNKS, "chunks")


def _check_directories(data: bytes) -> None:
    """Looks at the first two directories of a TIFF, as Pillow does: the second one tells that there are more frames."""
    big = data[2] == 43
    order = "<" if data.startswith(b"II") else ">"
    kinds = ("Q", "Q", "HHQ8x") if big else ("L", "H", "HHL4x")
    number, head, entry = (struct.Struct(order + kind) for kind in kinds)
    place = 8 if big else 4
    try:
        for _ in range(2):
            [start] = number.unpack_from(data, place)
            if not start:
                return
            [entries] = head.unpack_from(data, start)
            if entries > MAX_ENTRIES:
                raise _too_many(MAX_ENTRIES, "entries")
            for index in range(entries):
                tag, _, count = entry.unpack_from(data, start + head.size + index * entry.size)
                if tag in (_STRIP_OFFSETS, _TILE_OFFSETS) and count > MAX_STRIPS:
                    raise _too_many(MAX_STRIPS, "strips or tiles")
            place = start + head.size + entries * entry.size
    except (struct.error, OverflowError, IndexError):  # it ends early, and decoding finds the fault
        return


def _too_many(most: int, parts: str) -> InvalidImage:
    return InvalidImage(f"The image file has more than {most} {parts}; re-save it with an image editor.")
