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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Generic, TypeVar

import numpy as np
from PIL import Image

from service.errors import InvalidImage
from service.images.picture import Limits, decode
from trainer.errors import DiskFull, UserError
from trainer.files import write_json, write_jsonl, writing
from trainer.pool.pool import Pool, PoolImage, content_id, plan_variants
from trainer.pool.sources import Entry
from trainer.pool.unreadable import remedy, told

ORIGINALS, UNREADABLE = "originals", "unreadable.jsonl"
FIRST = 3
"""Unreadable entries that are named in the log and the report."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Counts of a scan of the pool."""

    files: int
    originals: int
    unreadable: int
    """Among the files that were drawn and opened; `unreadable.jsonl` lists them. Other files are not opened."""
    unreadable_share: float
    """Of the whole pool, as estimated from the files that were opened."""
    reasons: dict[str, int]
    """The most frequent ones, and their numbers."""
    first_unreadable: list[str]

    def __str__(self) -> str:
        """What is unreadable, why, and the first few."""
        return (
            f"{self.unreadable:,} of the pool's {self.files:,} entries cannot be read: {told(Counter(self.reasons))}; "
            f"the first: {', '.join(self.first_unreadable)}; {UNREADABLE} in the round's folder lists them"
        )


def build(
    sources: Iterable[Entry],
    folder: Path,
    *,
    images: int,
    variants: int,
    limits: Limits,
    pixels: int,
    most_unreadable: float,
    draw_seed: int,
    variant_seed: int,
    advance: Callable[[int, str], None],
) -> tuple[Pool, Drawn]:
    """Draws at most `images` originals uniformly, and writes the round's `pool.jsonl` last.

    The same contents and seeds give the same pool, in any order; content that occurs twice is taken once. The originals
    are copied into `<folder>/originals`, those with more than `pixels` scaled down: a round reads nothing else of the
    pool afterwards. Variants are planned here and made later, in `<folder>/../variants`, for all rounds.

    Raises:
        UserError: no readable image was found, or more than the share `most_unreadable` of the pool is unreadable.
        DiskFull: a copy could not be written.
    """
    shutil.rmtree(folder / ORIGINALS, ignore_errors=True)  # what a killed scan left
    (folder / ORIGINALS).mkdir(parents=True)
    own = partial(owned, folder=folder / ORIGINALS, pixels=pixels, min_side=limits.min_side)
    with writing(folder / UNREADABLE), (folder / UNREADABLE).open("w", encoding="utf-8") as listing:
        scan = _Scan(Sample(images, draw_seed), folder / ORIGINALS, limits, listing)
        scan.run(sources, advance)
        originals = _owned(scan, own, advance)
    drawn = scan.drawn(len(originals))
    work = folder.parent / "variants"
    pool = Pool([one for image in originals for one in (image, *plan_variants(image.id, work, variants, variant_seed))])
    write_json(folder / "pool.json", {**asdict(drawn), "images": len(pool.images)})
    if not originals and not drawn.unreadable:
        raise UserError(
            "no readable image in the pool: 0 files; name a folder, pattern, list, Parquet file or shard of images "
            "with --pool"
        )
    if not originals:
        raise UserError(f"no readable image in the pool: {drawn}; {remedy(Counter(drawn.reasons))}")
    if drawn.unreadable_share > most_unreadable:
        raise UserError(f"{drawn}; {remedy(Counter(drawn.reasons))}, or allow more with --pool-unreadable")
    write_jsonl(folder / "pool.jsonl", map(asdict, pool.images))
    return pool, drawn


def _owned(scan: _Scan, own: Callable[[PoolImage], PoolImage], advance: Callable[[int, str], None]) -> list[PoolImage]:
    """The originals as files of the round, on all cores. Two that differ only in metadata become one."""
    found: dict[PoolImage, None] = {}

    def attempt(original: PoolImage) -> PoolImage | None:
        try:
            return own(original)
        except DiskFull:
            raise
        except (UserError, OSError):
            return None

    originals = scan.originals()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for copied, (original, image) in enumerate(zip(originals, threads.map(attempt, originals), strict=True), 1):
            if image:
                found[image] = None
            else:
                scan.pass_over(original.path, "gone or changed while the pool was drawn")
            advance(0, f"{copied} of {len(originals)} drawn")
    return list(found)


@dataclass(frozen=True, slots=True)
class _Original:
    name: str
    path: Path


class _Scan:
    def __init__(self, sample: Sample[_Original], copies: Path, limits: Limits, listing: IO[str]) -> None:
        self._sample = sample
        self._copies = copies
        self._limits = limits
        self._listing = listing
        self._files = self._opened = self._missing = 0
        self._reasons: Counter[str] = Counter()
        self._first: list[str] = []

    def run(self, sources: Iterable[Entry], advance: Callable[[int, str], None]) -> None:
        """Looks at every entry once."""
        for entry in sources:
            self._files += 1
            self._take(entry)
            unreadable = self._reasons.total()
            advance(1, f"{unreadable} unreadable" if unreadable else "")

    def drawn(self, originals: int) -> Drawn:
        """The counts so far. Entries that were not drawn were read, but not decoded."""
        unreadable = self._reasons.total()
        read = 1 - self._missing / max(1, self._files)
        decoded = 1 - (unreadable - self._missing) / max(1, self._opened)
        share = round(1 - read * decoded, 6)
        return Drawn(self._files, originals, unreadable, share, dict(self._reasons.most_common(9)), self._first)

    def originals(self) -> list[PoolImage]:
        """The drawn originals, in a random order."""
        return [PoolImage(content, str(original.path), content) for content, original in self._sample]

    def pass_over(self, name: str, reason: str) -> None:
        """Counts and lists an entry that cannot be read."""
        name, reason = (text.encode(errors="backslashreplace").decode() for text in (name, reason))
        self._reasons[reason] += 1
        if len(self._first) < FIRST:
            self._first.append(name)
        self._listing.write(json.dumps({"file": name, "problem": reason}) + "\n")

    def _take(self, entry: Entry) -> None:
        """Keeps an entry that is drawn."""
        try:
            data = entry.read()
            content = content_id(data)
            known = self._sample.get(content)
            if drawn := known is None and self._sample.wants(content):
                self._opened += 1
                decode(data, self._limits)
        except OSError as error:
            self._missing += 1
            self.pass_over(entry.name, error.strerror or str(error))
        except InvalidImage as error:
            self.pass_over(entry.name, str(error))
        else:
            if drawn or (known and entry.name < known.name):
                self._keep(content, entry, data)

    def _keep(self, content: str, entry: Entry, data: bytes) -> None:
        copy = self._copies / content
        if not entry.file:
            copy.write_bytes(data)
        gone = self._sample.put(content, _Original(entry.name, (entry.file or copy).absolute()))
        if gone:
            (self._copies / gone.path.name).unlink(missing_ok=True)


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


def owned(original: PoolImage, folder: Path, *, pixels: int, min_side: int) -> PoolImage:
    """The original as a file in `folder`: as it is or, if it has more than `pixels`, a smaller PNG, which replaces a
    copy there. Not a link: a picture that is written anew in place would change under the round.

    Raises:
        UserError: the original's file is gone, or has changed since it was drawn.
        DiskFull: the file could not be written.
    """
    pool = Pool([original])
    data = pool.bytes_of(original.id)
    with Image.open(io.BytesIO(data)) as header:
        large = header.width * header.height > pixels
    if large:
        data = _png(shrunk(pool.open(original.id), pixels, min_side))
    content = content_id(data)
    file, before = folder.absolute() / content, Path(original.path)
    if file != before:
        with writing(file):
            file.write_bytes(data)
        if file.parent == before.parent:
            before.unlink()
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
