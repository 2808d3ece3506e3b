"""Draws a round's originals from all that the pool holds, scales large ones down, and plans their variants.

The draw is a uniform sample of a stream without replacement, in memory proportional to the sample. Bottom-k sampling
keeps the contents with the smallest keyed hashes: the sample is a function of the key and the set of contents; neither
their order nor repetitions matter.
"""

from __future__ import annotations

import hashlib
import heapq
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from PIL import Image

from service.errors import InvalidImage
from service.images.picture import Limits, decode
from trainer.errors import UserError
from trainer.files import write_json, write_jsonl, writing
from trainer.pool.pool import Pool, PoolImage, content_id, plan_variants
from trainer.pool.sources import Entry

ORIGINALS, UNREADABLE = "originals", "unreadable.jsonl"


@dataclass(frozen=True, slots=True)
class Drawn:
    """Counts of a scan of the pool."""

    files: int
    originals: int
    unreadable: int
    """Among the files that were drawn and opened; `unreadable.jsonl` lists them. Other files are not opened."""


def build(
    sources: Iterable[Entry],
    folder: Path,
    *,
    images: int,
    variants: int,
    limits: Limits,
    pixels: int,
    draw_seed: int,
    variant_seed: int,
    advance: Callable[[int, str], None],
) -> tuple[Pool, Drawn]:
    """Draws at most `images` originals uniformly, and writes the round's `pool.jsonl` last.

    The same contents and seeds give the same pool, in any order; content that occurs twice is taken once. Images out of
    archives are copied into `<folder>/originals`; images with more than `pixels` go there scaled down. Variants
    are planned here and made later, in `<folder>/../variants`, for all rounds.

    Raises:
        UserError: no readable image was found.
        DiskFull: a copy could not be written.
    """
    scan = _Scan(Sample(images, draw_seed), folder, limits)
    drawn = scan.run(sources, advance)
    if not drawn.originals:
        raise UserError(
            f"no readable image in the pool: {drawn.files} files, {drawn.unreadable} of them unreadable; name a "
            "folder, pattern, list, Parquet file or shard of images with --pool"
        )
    work = folder.parent / "variants"
    smaller = partial(scaled, folder=folder / ORIGINALS, pixels=pixels, min_side=limits.min_side)
    originals = _scaled_down(smaller, scan.originals(), partial(advance, 0))
    pool = Pool([one for image in originals for one in (image, *plan_variants(image.id, work, variants, variant_seed))])
    write_json(folder / "pool.json", {**asdict(drawn), "images": len(pool.images)})
    write_jsonl(folder / "pool.jsonl", map(asdict, pool.images))
    return pool, drawn


def _scaled_down(
    smaller: Callable[[PoolImage], PoolImage], originals: list[PoolImage], report: Callable[[str], None]
) -> list[PoolImage]:
    """The originals, large ones scaled down, on all cores. Two that differ only in metadata become one."""
    found: dict[PoolImage, None] = {}
    changed = 0
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for original, image in zip(originals, threads.map(smaller, originals), strict=True):
            found[image] = None
            if image is not original:
                changed += 1
                report(f"{changed} large ones scaled down")
    return list(found)


@dataclass(frozen=True, slots=True)
class _Original:
    name: str
    path: Path


class _Scan:
    def __init__(self, sample: Sample[_Original], folder: Path, limits: Limits) -> None:
        self._sample = sample
        self._limits = limits
        self._folder = folder

    def run(self, sources: Iterable[Entry], advance: Callable[[int, str], None]) -> Drawn:
        """Looks at every entry once, after removing the leftovers of a killed scan."""
        shutil.rmtree(self._folder / ORIGINALS, ignore_errors=True)
        (self._folder / ORIGINALS).mkdir(parents=True)
        files = unreadable = 0
        file = self._folder / UNREADABLE
        with writing(file), file.open("w", encoding="utf-8") as listing:
            for entry in sources:
                files += 1
                if problem := self._take(entry):
                    unreadable += 1
                    listing.write(json.dumps({"file": entry.name, "problem": problem}) + "\n")
                advance(1, f"{unreadable} unreadable" if unreadable else "")
        return Drawn(files, len(self._sample), unreadable)

    def originals(self) -> list[PoolImage]:
        """The drawn originals, in a random order."""
        return [PoolImage(content, str(original.path), content) for content, original in self._sample]

    def _take(self, entry: Entry) -> str | None:
        """Keeps an entry that is drawn. Returns the problem of one that cannot be read."""
        try:
            data = entry.read()
            content = content_id(data)
            known = self._sample.get(content)
            if drawn := known is None and self._sample.wants(content):
                decode(data, self._limits)
        except (OSError, InvalidImage) as error:
            return str(error)
        if drawn or (known and entry.name < known.name):
            self._keep(content, entry, data)
        return None

    def _keep(self, content: str, entry: Entry, data: bytes) -> None:
        copy = self._folder / ORIGINALS / content
        if not entry.file:
            copy.write_bytes(data)
        gone = self._sample.put(content, _Original(entry.name, (entry.file or copy).absolute()))
        if gone:
            (self._folder / ORIGINALS / gone.path.name).unlink(missing_ok=True)


T = TypeVar("T")


class Sample(Generic[T]):
    """A bottom-k sample: at most `size` items by the ids of their contents."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._key = str(seed).encode()
        self._worst: list[tuple[int, str]] = []
        self._items: dict[str, T] = {}

    def __len__(self) -> int:
        """The number of items kept."""
        return len(self._items)

    def __iter__(self) -> Iterator[tuple[str, T]]:
        """Ids and items, in a random order."""
        return iter(sorted(self._items.items(), key=lambda item: self._rank(item[0])))

    def get(self, content: str) -> T | None:
        """The item of a content, if it is kept."""
        return self._items.get(content)

    def wants(self, content: str) -> bool:
        """True if an item of a new content would be kept."""
        return len(self._items) < self._size or self._rank(content) < -self._worst[0][0]

    def put(self, content: str, item: T) -> T | None:
        """Keeps an item, replacing that of the same content. Returns the item that had to go."""
        if content not in self._items:
            heapq.heappush(self._worst, (-self._rank(content), content))
        self._items[content] = item
        if len(self._items) <= self._size:
            return None
        return self._items.pop(heapq.heappop(self._worst)[1])

    def _rank(self, content: str) -> int:
        return int.from_bytes(hashlib.blake2b(content.encode(), key=self._key, digest_size=8).digest())


def scaled(original: PoolImage, folder: Path, *, pixels: int, min_side: int) -> PoolImage:
    """The original as it is or, if it has more than `pixels`, a smaller PNG in `folder`, which replaces a copy there.

    Raises:
        UserError: the original's file is gone, or has changed since it was drawn.
        DiskFull: the file could not be written.
    """
    with Image.open(original.path) as header:
        if header.width * header.height <= pixels:
            return original
    data = _png(shrunk(Pool([original]).open(original.id), pixels, min_side))
    content = content_id(data)
    file = folder.absolute() / content
    with writing(file):
        file.write_bytes(data)
    if Path(original.path).parent == file.parent:
        Path(original.path).unlink()
    return PoolImage(content, str(file), content)


def shrunk(picture: Image.Image, pixels: int, min_side: int) -> Image.Image:
    """The picture at `pixels` at most, by Lanczos' filter; at more only if a side would be below `min_side`."""
    side = min(picture.size)
    shorter = max(min_side, math.floor(side * math.sqrt(pixels / (picture.width * picture.height))))
    width, height = (length * shorter // side for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _png(picture: Image.Image) -> bytes:
    """A PNG without metadata: a colour profile would be applied a second time when the file is opened."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(picture)).save(file, "PNG")
    return file.getvalue()
