"""A uniform sample of a stream, without replacement, in the memory of the sample alone.

Bottom-k sampling: of all contents those with the smallest keyed hashes are kept. The sample is a function of the
key and the set of contents; neither their order nor repetitions matter.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from typing import Generic, TypeVar

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
