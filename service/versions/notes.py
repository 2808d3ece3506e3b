"""Small files beside the versions, which themselves never change: marks, results, canary answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

from service.errors import LinkInStore
from service.files import Unreadable, read_json, write_atomically
from service.versions.writing import locked, without_links

N = TypeVar("N", bound=BaseModel)


class Notes(Generic[N]):
    """`<root>/<folder>/<version>.json` for each version of which something is known. `tell` hears of broken files."""

    def __init__(self, root: Path, folder: str, model: type[N], tell: Callable[[str, Exception], None]) -> None:
        self._root = root
        self._folder = folder
        self._model = model
        self._tell = tell
        self._seen: dict[str, tuple[tuple[int, int, int], N | Unreadable | None]] = {}

    def of(self, version: str) -> N | Unreadable | None:
        """What is known of a version; None if there is nothing."""
        name = f"{version}.json"
        try:
            return read_json(without_links(self._root, self._folder, name), self._model)
        except FileNotFoundError:
            return None
        except (Unreadable, LinkInStore) as reason:
            self._tell(f"{self._folder}/{name}", reason)
            return Unreadable(str(reason))

    def all(self) -> dict[str, N | Unreadable | None]:
        """What is known of every version. Reads again only what has changed."""
        seen, folder = self._seen, self._root / self._folder
        self._seen = {}
        for name in children(folder):
            version = name.removesuffix(".json")
            with suppress(OSError):  # removed meanwhile
                found = (folder / name).lstat()
                stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
                known = seen.get(version)
                self._seen[version] = known if known and known[0] == stamp else (stamp, self.of(version))
        return {version: note for version, (_, note) in self._seen.items()}

    def write(self, version: str, note: N) -> None:
        """Replaces what is known of a version. Raises OSError, LinkInStore."""
        with locked(self._root):
            file = without_links(self._root, self._folder, f"{version}.json")
            file.parent.mkdir(exist_ok=True)
            write_atomically(file, note.model_dump_json() + "\n")


def children(folder: Path) -> Sequence[str]:
    """The names in a folder; none if it cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []
