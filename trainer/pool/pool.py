"""The pool of a round: originals drawn from the user's unlabelled images, and distorted variants of each.

Variants are planned at once; their pictures are made when they are first needed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from service.images.picture import FORMATS, Limits, decode, take_heif
from trainer.errors import UserError
from trainer.files import built, read_jsonl, replacing
from trainer.pool.distortions import LEVELS, TYPES, distort


@dataclass(frozen=True, slots=True)
class PoolImage:
    """An original, known by its content, or a variant of one.

    `source` is the id of the original that it was made from (its own if it is one).
    """

    id: str
    path: str
    source: str
    kind: str | None = None
    level: int | None = None


@dataclass(frozen=True)
class Pool:
    """All images of a round."""

    images: list[PoolImage]

    @cached_property
    def by_id(self) -> dict[str, PoolImage]:
        """Images by their ids."""
        return {image.id: image for image in self.images}

    @cached_property
    def _fingerprints(self) -> dict[str, tuple[str, int]]:
        return {}

    def bytes_of(self, image_id: str) -> bytes:
        """The image file's bytes; a missing variant is made first.

        Raises:
            UserError: an original's file is gone, or has changed since it was drawn.
            DiskFull: the variant could not be written.
        """
        image = self.by_id[image_id]
        if image.kind is None:
            return _original(image)
        if not Path(image.path).exists():
            make_variant(image, self.open(image.source))
        return Path(image.path).read_bytes()

    def fingerprint(self, image_id: str) -> tuple[str, int]:
        """The SHA-256 of the image file in hex, and its length in bytes. Raises as `bytes_of`."""
        if image_id not in self._fingerprints:
            file = self.bytes_of(image_id)
            self._fingerprints[image_id] = hashlib.sha256(file).hexdigest(), len(file)
        return self._fingerprints[image_id]

    def open(self, image_id: str) -> Image.Image:
        """The image's RGB pixels, as the service decodes the same bytes. Raises as `bytes_of`."""
        return decode(self.bytes_of(image_id), _limits())

    def missing(self, image_ids: Iterable[str]) -> list[str]:
        """The variants among these images that are not made yet."""
        images = (self.by_id[image] for image in dict.fromkeys(image_ids))
        return [image.id for image in images if image.kind and not Path(image.path).exists()]

    def make(self, image_ids: Iterable[str], advance: Callable[[int], None]) -> None:
        """Makes these variants, on all cores."""
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            for _ in threads.map(self.bytes_of, image_ids):
                advance(1)

    @classmethod
    def load(cls, manifest: Path) -> Pool:
        """Reads the manifest that `build` wrote."""
        return cls([built(PoolImage, row) for row in read_jsonl(manifest)])


def content_id(data: bytes) -> str:
    """The first 16 hex digits of the SHA-256 of a file."""
    return hashlib.sha256(data).hexdigest()[:16]


def plan_variants(source: str, folder: Path, count: int, seed: int) -> list[PoolImage]:
    """`count` variants of different types at random levels, a function of the seed and the source's content."""
    rng = np.random.default_rng((seed, int(source, 16)))
    kinds = rng.choice(list(TYPES), count, replace=False)
    levels = rng.integers(LEVELS.start, LEVELS.stop, count)
    ids = [(f"{source}-{kind}-{level}", str(kind), int(level)) for kind, level in zip(kinds, levels, strict=True)]
    return [PoolImage(name, str(folder / f"{name}.png"), source, kind, level) for name, kind, level in ids]


def make_variant(variant: PoolImage, picture: Image.Image) -> None:
    """Writes a variant of the source's picture. Its noise is a function of its id.

    Raises:
        ValueError: the image is an original.
        DiskFull: the file could not be written.
    """
    if variant.kind is None or variant.level is None:
        raise ValueError(f"{variant.id} is an original")
    rng = np.random.default_rng(int(hashlib.sha256(variant.id.encode()).hexdigest()[:16], 16))
    with replacing(Path(variant.path)) as file:
        distort(picture, variant.kind, variant.level, rng).save(file, format="PNG")


def _original(image: PoolImage) -> bytes:
    try:
        data = Path(image.path).read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"the pool's image {image.path} is gone since the round began; put it back") from error
    if content_id(data) != image.id:
        raise UserError(f"the pool's image {image.path} has changed since the round began; put it back as it was")
    return data


@cache
def _limits() -> Limits:
    """Generous: the service's own were held when the originals were drawn, and variants have as many pixels."""
    formats = take_heif() if find_spec("pillow_heif") else FORMATS
    return Limits(max_pixels=89_000_000, min_side=1, max_bytes=2**31, formats=formats)
