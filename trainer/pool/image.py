"""One image of the pool."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


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


def content_id(data: bytes) -> str:
    """The first 16 hex digits of the SHA-256 of a file."""
    return hashlib.sha256(data).hexdigest()[:16]
