"""The structure of an image file, walked before Pillow opens it.

Pillow parses segments and chunks in Python, and a JPEG decoder passes over the picture once for each scan. So a few
megabytes of filling, of tiny segments or of scans can keep it busy for minutes. This walk limits their numbers first.
"""

from __future__ import annotations

import re

from service.errors import InvalidImage

MAX_SEGMENTS = 4096
"""Of a JPEG. A 20 MiB file full of extended metadata has some 320."""
MAX_FILLING = 64 * 1024
"""Bytes between the segments of a JPEG that belong to none."""
MAX_CHUNKS = 50_000
"""Of a PNG. A 20 MiB file has some 2,600 of the usual size."""

_MARKER = re.compile(rb"\xff([^\x00\xff])")
_BEHIND_ENTROPY = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_PNG = b"\x89PNG\r\n\x1a\n"


def count_scans(data: bytes) -> int:
    """The scans of a JPEG (ITU-T T.81, annex B); 0 for another format.

    Counts up to the end of the first image. What follows, such as the film of a motion photograph, is ignored. A broken
    structure ends the walk, and decoding finds the fault. Raises InvalidImage for more parts than an ordinary file has.
    """
    if data.startswith(_PNG):
        _check_chunks(data)
    return _walk_jpeg(data) if data.startswith(b"\xff\xd8") else 0


def _walk_jpeg(data: bytes) -> int:
    scans = segments = filling = 0
    position = 2
    while marker := _MARKER.search(data, position):
        filling += marker.start() - position
        segments += 1
        if segments > MAX_SEGMENTS:
            raise InvalidImage(
                f"The image file has more than {MAX_SEGMENTS} segments; re-save it with an image editor."
            )
        if filling > MAX_FILLING:
            raise InvalidImage(
                f"The image file has more than {MAX_FILLING} padding bytes; re-save it with an image editor."
            )
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
    raise InvalidImage(f"The image file has more than {MAX_CHUNKS} chunks; re-save it with an image editor.")
