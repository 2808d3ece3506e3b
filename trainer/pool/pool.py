"""The pool of a round: the user's unlabelled images and distorted variants of each, by content id."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.files import read_jsonl, write_jsonl
from trainer.pool.distortions import TYPES, distort

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"}


@dataclass(frozen=True, slots=True)
class PoolImage:
    """One image of the pool. `source` is the id of the user's image it was made from (its own if untouched)."""

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
        """Images by content id."""
        return {image.id: image for image in self.images}

    def bytes_of(self, image_id: str) -> bytes:
        """The image file's bytes."""
        return Path(self.by_id[image_id].path).read_bytes()

    @classmethod
    def load(cls, manifest: Path) -> Pool:
        """Reads the manifest that `build` wrote."""
        return cls([PoolImage(**row) for row in read_jsonl(manifest)])


def build(
    folder: Path, work: Path, manifest: Path, *, variants: int, seed: int, limit: int | None = None
) -> tuple[Pool, list[str]]:
    """Finds the images below `folder`, writes distorted variants into `work`, and the manifest last.

    The same folder and seed give the same pool. Content that occurs twice is taken once.

    Returns:
        The pool, and the paths of files that could not be read as images.

    Raises:
        ValueError: no readable image was found.
    """
    work.mkdir(parents=True, exist_ok=True)
    images: dict[str, PoolImage] = {}
    unreadable: list[str] = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)[:limit]:
        try:
            picture = Image.open(path).convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            unreadable.append(str(path))
            continue
        original = PoolImage(content_id(path.read_bytes()), str(path), content_id(path.read_bytes()))
        if original.id not in images:
            images[original.id] = original
            for variant in _variants(picture, original.id, work, variants, seed):
                images.setdefault(variant.id, variant)
    if not images:
        raise ValueError(f"no readable image below {folder}; expected files ending in {', '.join(sorted(SUFFIXES))}")
    pool = Pool(list(images.values()))
    write_jsonl(manifest, (asdict(image) for image in pool.images))
    return pool, unreadable


def content_id(data: bytes) -> str:
    """The first 16 hex digits of the SHA-256 of a file."""
    return hashlib.sha256(data).hexdigest()[:16]


def _variants(picture: Image.Image, source: str, work: Path, count: int, seed: int) -> list[PoolImage]:
    """`count` distorted variants of random types and levels, seeded by the source's content."""
    rng = np.random.default_rng((seed, int(source, 16)))
    made = []
    for kind in rng.choice(list(TYPES), count, replace=False):
        level = int(rng.integers(1, 6))
        path = work / f"{source}-{kind}-{level}.png"
        distort(picture, str(kind), level, rng).save(path)
        made.append(PoolImage(content_id(path.read_bytes()), str(path), source, str(kind), level))
    return made
