"""How much one request may carry: the service refuses bodies beyond its `max_operator_bytes`, 256 MiB unless set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

MAX_IMAGE_BYTES = 64 * 2**20
"""Of a request's images in base64: ten or more of the largest that a pool holds."""


def fitting(items: Sequence[T], shown: Callable[[T], Iterable[str]], images: Mapping[str, str]) -> Sequence[T]:
    """The first items, at least one, whose images (`shown` names them) fit into a request, each carried once."""
    carried: set[str] = set()
    size = 0
    for count, item in enumerate(items):
        more = set(shown(item)) - carried
        size += sum(len(images[image]) for image in more)
        if count and size > MAX_IMAGE_BYTES:
            return items[:count]
        carried |= more
    return items
