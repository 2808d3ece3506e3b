"""Bodies that mean harm, the same ones every time."""

from __future__ import annotations

import base64
import io
import json
import random
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from PIL import Image

from tests.service.conftest import encoded, picture

ROUTES = {
    "/v1/score": ("image",),
    "/v1/compare": ("first", "second"),
    "/v1/score/batch": ("images",),
    "/v1/rank": ("images",),
}
JSON = "application/json"
LEAKS = re.compile(
    r"Traceback|File \"|/usr/|/home/|/tmp/|/work/|site-packages|\.py\b|0x[0-9a-f]{6,}|BytesIO|"
    r"[A-Z][A-Za-z]*(Error|Exception|Warning)\b|pydantic|PIL|vllm|127\.0\.0\.1"
)
"""An answer's own words never hold these: paths, addresses, exceptions, the names of libraries."""


class Attack(NamedTuple):
    """A request that nobody should send."""

    path: str
    content_type: str
    body: bytes


def attacks() -> list[Attack]:
    """More than five hundred of them."""
    return [*_files(), *_json(), *_forms(), *_types()]


def leak(answer: Any) -> str | None:
    """The parts of an answer that it should not tell; its `instance` only repeats the caller's own words."""
    said = {**answer, "instance": None} if isinstance(answer, dict) else answer
    found = LEAKS.search(json.dumps(said))
    return found and found[0]


def form(fields: list[tuple[str, str | None, bytes]], boundary: bytes = b"b") -> bytes:
    """A multipart form; a part with a file name is a file."""
    parts = []
    for name, file, content in fields:
        named = f'; filename="{file}"' if file is not None else ""
        parts.append(b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (
            boundary, name.encode(), named.encode(), content
        ))  # fmt: skip
    return b"".join(parts) + b"--%s--\r\n" % boundary


def _files() -> Iterator[Attack]:
    """Files that are cut, flipped, bombs, or two things at once; on every route in turn."""
    for number, data in enumerate([*_cut(), *_flipped(), *_bombs()]):
        path, names = list(ROUTES.items())[number % len(ROUTES)]
        if number % 2:
            yield _as_json(path, names, base64.b64encode(data).decode())
        else:
            images = (
                [(name, "x.png", data) for name in (*names, *names)[:2]]
                if path != "/v1/score"
                else [("image", "x", data)]
            )
            yield Attack(path, "multipart/form-data; boundary=b", form(images))


def _as_json(path: str, names: tuple[str, ...], image: Any, **more: Any) -> Attack:
    value = [image, image] if names == ("images",) else image
    return Attack(path, JSON, json.dumps({**dict.fromkeys(names, value), **more}).encode())


def _samples() -> list[bytes]:
    kinds = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "AVIF")
    grey = Image.radial_gradient("L").resize((48, 48)).convert("RGB")
    return [encoded(grey, kind) for kind in kinds]


def _cut() -> Iterator[bytes]:
    for data in _samples():
        for part in range(1, 13):
            yield data[: len(data) * part // 13]


def _flipped() -> Iterator[bytes]:
    dice = random.Random(1)
    for data in _samples():
        for _ in range(25):
            broken = bytearray(data)
            for _ in range(dice.randint(1, 6)):
                broken[dice.randrange(min(len(broken), 200))] = dice.randrange(256)
            yield bytes(broken)


def _bombs() -> Iterator[bytes]:
    for width, height in ((100_000, 100_000), (2**31 - 1, 2**31 - 1), (16_385, 200), (0, 0), (1, 1), (5_000, 28)):
        yield _png(width, height)
    png, jpeg, *_ = _samples()
    yield png + b"<script>alert(1)</script>"
    yield b"GIF89a" + png
    yield b"%PDF-1.7\n" + jpeg
    yield jpeg + b"PK\x03\x04" + bytes(1000)
    yield b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"
    yield b"#!/bin/sh\nreboot\n"
    yield jpeg[:-2] + jpeg[jpeg.rindex(b"\xff\xda") : -2] * 300 + jpeg[-2:]
    frames = [Image.new("RGB", (48, 48), (shade, 0, 0)) for shade in range(8)]
    for kind in ("WEBP", "PNG", "TIFF"):
        stream = io.BytesIO()
        frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
        yield stream.getvalue()
    for kind in ("GIF", "ICO", "PPM", "TGA", "PCX", "EPS", "PDF", "JPEG2000"):
        yield encoded(Image.new("RGB", (48, 48)), kind)
    yield encoded(Image.new("F", (48, 48)), "TIFF")
    yield encoded(Image.new("I", (48, 48)), "TIFF")
    yield encoded(Image.new("RGB", (48, 48)), "JPEG", exif=b"Exif\0\0" + bytes(range(256)))
    yield encoded(Image.new("RGB", (48, 48)), "PNG", icc_profile=bytes(range(256)) * 20)
    yield tile_bomb(7_000)
    yield tile_bomb(2**20)
    yield zlib.compress(bytes(5_000_000))
    yield b""
    yield bytes(100_000)
    yield from _large()


def tile_bomb(side: int) -> bytes:
    """A TIFF of 100 x 100 pixels, cut out of one tile far larger that is all zeros."""
    tile = zlib.compress(bytes(min(side, 7_000) ** 2))
    tags = {
        256: 100, 257: 100, 258: 8, 259: 8, 262: 1, 277: 1,
        322: side, 323: side, 324: 0, 325: len(tile),
    }  # fmt: skip
    tags[324] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + tile


def _large() -> Iterator[bytes]:
    """Contents that show if they stay in the memory: a megabyte each, as a file or once it is decoded."""
    dice = random.Random(2)
    for _ in range(12):
        yield dice.randbytes(2**20)
    for side in range(600, 612):
        whole = encoded(Image.radial_gradient("L").resize((side, side)), "PNG")
        yield whole[: len(whole) * 9 // 10]


def _png(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


IMAGE = base64.b64encode(picture()).decode()
WRONG: dict[str, list[Any]] = {
    "image": [None, 0, -1, True, [], {}, "", "###", "é", "data:", "data:image/png;base64,", "data:text/html,<b>",
              "https://127.0.0.1/", "http://169.254.169.254/latest", "file:///etc/passwd", "gopher://x", "\0",
              "data:image/png;base64," + "A" * 50_000, "\ud800", ["a"] * 70, "${jndi:ldap://x}", "../../etc/passwd"],
    "samples": [0, -1, 65, 3.5, "x", None, [], {}, True, 10**400, "1e999", "NaN"],
    "temperature": [-1, 3, "x", [], {}, 1e308, "inf", True],
    "seed": [-1, 2**31, 2**63, 10**500, 1.5, "x", []],
    "mode": ["", "EXPECTED", 0, [], {"mode": "sampled"}, "sampled\0", "x" * 10_000],
    "nobody": [1, None, {}, "x" * 5000],
}  # fmt: skip


def _json() -> Iterator[Attack]:
    """Values of wrong types and sizes, and JSON that is none."""
    for path, names in ROUTES.items():
        for wrong in WRONG["image"]:
            yield _as_json(path, names, wrong)
        for field, values in WRONG.items():
            for value in values if field != "image" else ():
                yield _as_json(path, names, IMAGE, **{field: value})
        for text in _no_json(names[0]):
            yield Attack(path, JSON, text)


def _no_json(name: str) -> Iterator[bytes]:
    yield from (b"", b"{", b"null", b"[]", b"0", b'"x"', b"\xff\xfe{}", b"{'a': 1}", b"NaN", b"\0" * 1000)
    yield b"[" * 50_000
    yield b'{"%s":' % name.encode() * 20_000
    yield b'{"seed": ' + b"9" * 100_000 + b"}"
    yield b'{"temperature": NaN, "%s": ""}' % name.encode()
    yield b'{"%s": "\\ud800"}' % name.encode()
    yield b'{"%s": "\xc3\x28"}' % name.encode()
    yield b"{" + b",".join(b'"k%d": 1' % number for number in range(5000)) + b"}"
    yield b'{"%s": "a", "%s": "b"}' % (name.encode(), name.encode())


def _forms() -> Iterator[Attack]:
    """Forms with too many parts, wrong parts, cut and bent ones."""
    image = picture()
    for path, names in ROUTES.items():
        good = form([(name, "x.png", image) for name in names])
        for cut in range(0, len(good), len(good) // 10):
            yield Attack(path, "multipart/form-data; boundary=b", good[:cut])
        bent = [
            form([(str(number), None, b"") for number in range(2000)]),
            form([(str(number), "x", b"") for number in range(2000)]),
            form([(names[0], None, b"text")]),
            form([(names[0], "x", image)] * 70),
            form([(names[0], "x", image), ("seed", None, b"1"), ("seed", None, b"2")]),
            form([(names[0], "x", image), ("mode", None, b"x" * 100_000)]),
            form([("x" * 100_000, None, b"")]),
            form([(names[0], "../../../etc/passwd\0", image)]),
            form([(names[0], "x", image)]).replace(b"form-data", b"attachment"),
            form([(names[0], "x", image)]).replace(b"\r\n\r\n", b"\r\n" + b"X: y\r\n" * 5000 + b"\r\n", 1),
            b"-" * 50_000,
            b"x" * 50_000 + good,
            good + b"x" * 50_000,
        ]
        for body in bent:
            yield Attack(path, "multipart/form-data; boundary=b", body)
        for boundary in (
            "",
            "; boundary=",
            "; boundary=" + "b" * 5000,
            '; boundary="b',
            "; boundary=é",
            "; boundary=c",
        ):
            yield Attack(path, "multipart/form-data" + boundary, good)


def _types() -> Iterator[Attack]:
    kinds = ("", "text/plain", "text/html", "application/xml", "application/octet-stream", "image/png", "x" * 5000,
             "application/json/x", "application/x-www-form-urlencoded", "*/*",
             "multipart/mixed; boundary=b")  # fmt: skip
    for path in ROUTES:
        for kind in kinds:
            yield Attack(path, kind, picture())
