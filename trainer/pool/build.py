"""Draws a round's originals from all that the pool holds, and plans their variants."""

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
from trainer.files import write_json, write_jsonl, writing
from trainer.pool.pool import Pool, PoolImage, content_id, planned
from trainer.pool.sources import Entry

ORIGINALS, UNREADABLE = "originals", "unreadable.jsonl"


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a scan of the pool met."""

    files: int
    originals: int
    unreadable: int
    """Of those that were drawn and opened; `unreadable.jsonl` lists them. Files that were not drawn are not opened."""


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

    The same contents and seeds give the same pool, in whatever order they come; content that occurs twice is taken
    once. Memory is that of the sample. What is no plain file is copied into `<folder>/originals`; so is, scaled
    down, what has more than `pixels`. Variants, which are planned here and made later, go into `<folder>/../variants`,
    for all rounds.

    Raises:
        ValueError: no readable image was found.
        DiskFull: a copy could not be written.
    """
    scan = _Scan(Sample(images, draw_seed), folder, limits)
    drawn = scan.run(sources, advance)
    if not drawn.originals:
        raise ValueError(
            f"no readable image in the pool: {drawn.files} files, {drawn.unreadable} of them unreadable; "
            "expected a folder, pattern, list, Parquet file or shard of images"
        )
    work = folder.parent / "variants"
    smaller = partial(scaled, folder=folder / ORIGINALS, pixels=pixels, min_side=limits.min_side)
    originals = _scaled_down(smaller, scan.originals(), partial(advance, 0))
    pool = Pool([one for image in originals for one in (image, *planned(image.id, work, variants, variant_seed))])
    write_json(folder / "pool.json", {**asdict(drawn), "images": len(pool.images)})
    write_jsonl(folder / "pool.jsonl", map(asdict, pool.images))
    return pool, drawn


def _scaled_down(
    smaller: Callable[[PoolImage], PoolImage], originals: list[PoolImage], tell: Callable[[str], None]
) -> list[PoolImage]:
    """The originals, large ones made smaller, on all cores. Two that differ in metadata alone become one."""
    found: dict[PoolImage, None] = {}
    changed = 0
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for original, image in zip(originals, threads.map(smaller, originals), strict=True):
            found[image] = None
            if image is not original:
                changed += 1
                tell(f"{changed} large ones scaled down")
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
        """Looks at every entry once; what a killed scan left is thrown away first."""
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
        """Those drawn, in an order that the seed decides."""
        return [PoolImage(content, str(original.path), content) for content, original in self._sample]

    def _take(self, entry: Entry) -> str | None:
        """Keeps an entry that is drawn. Returns why it cannot be, if it cannot."""
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
    """At most `size` items by the ids of their contents."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._key = str(seed).encode()
        self._worst: list[tuple[int, str]] = []
        self._items: dict[str, T] = {}

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._items)

    def __iter__(self) -> Iterator[tuple[str, T]]:
        """Ids and items in an order that the seed decides."""
        return iter(sorted(self._items.items(), key=lambda item: self._rank(item[0])))

    def get(self, content: str) -> T | None:
        """The item of that content, if it is kept."""
        return self._items.get(content)

    def wants(self, content: str) -> bool:
        """Whether an item of a content not seen yet would be kept."""
        return len(self._items) < self._size or self._rank(content) < -self._worst[0][0]

    def put(self, content: str, item: T) -> T | None:
        """Keeps an item, in place of the one of the same content if there is one. Returns what had to go."""
        if content not in self._items:
            heapq.heappush(self._worst, (-self._rank(content), content))
        self._items[content] = item
        if len(self._items) <= self._size:
            return None
        return self._items.pop(heapq.heappop(self._worst)[1])

    def _rank(self, content: str) -> int:
        return int.from_bytes(hashlib.blake2b(content.encode(), key=self._key, digest_size=8).digest())


def scaled(original: PoolImage, folder: Path, *, pixels: int, min_side: int) -> PoolImage:
    """The original as it is or, if it has more than so many pixels, a smaller one: a PNG in `folder`, in whose place
    a copy that lies there is removed.

    Raises:
        OSError, ValueError: the original's file is gone, or has changed since it was drawn.
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
    """The picture at `pixels` at most, by Lanczos' filter; at more only where a side would be below `min_side`."""
    side = min(picture.size)
    shorter = max(min_side, math.floor(side * math.sqrt(pixels / (picture.width * picture.height))))
    width, height = (length * shorter // side for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _png(picture: Image.Image) -> bytes:
    """Without the metadata that pictures carry along: a profile would be applied again by whoever opens the file."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(picture)).save(file, "PNG")
    return file.getvalue()
