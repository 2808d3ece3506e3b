"""The trainer's picture files, kept for a while: it asks about each again and again, and sends it once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cachetools import TTLCache

from service.errors import UnknownImages

REFERENCE = "sha256:"
"""Begins what stands for a file: a digest follows."""
_KEPT_SECONDS = 600.0
"""After its last use."""


class KeptFiles:
    """Files by their digests, up to `limit` bytes in all; those used last stay. Belongs to one event loop."""

    def __init__(self, limit: int) -> None:
        self._files: TTLCache[str, bytes] = TTLCache(limit, _KEPT_SECONDS, getsizeof=len)

    def keep(self, digest: str, file: bytes) -> None:
        """Keeps a file from now on, unless it is larger than all the room."""
        if len(file) <= self._files.maxsize:
            self._files[digest] = file
            asyncio.get_running_loop().call_later(_KEPT_SECONDS, self._files.expire)

    def resolved(self, sources: Sequence[bytes | str]) -> list[bytes | str]:
        """The sources, with files in the place of references. Raises UnknownImages for all that are missing."""
        found, missing = [], []
        for source in sources:
            if isinstance(source, bytes) or not source.startswith(REFERENCE):
                found.append(source)
            elif file := self._files.get(digest := source.removeprefix(REFERENCE)):
                found.append(file)
            else:
                missing.append(digest)
        if missing:
            raise UnknownImages("Send these images again: the service does not have them, or not any more.", missing)
        return found
