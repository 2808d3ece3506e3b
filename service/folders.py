"""Image files in folders: which names are images, and a walk that says what it does not enter."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "TIFF": (".tif", ".tiff"),
    "HEIF": (".heic", ".heif", ".hif"),
}
"""By format, where they are not simply its name."""
LINKED = "a linked folder; --follow-links enters it"
ENTERED = "a link to a folder that was entered already"
SPECIAL = "neither a file nor a folder"
SHOWN = 3


def suffixes(formats: Iterable[str]) -> tuple[str, ...]:
    """The suffixes of image formats as `GET /v1/info` lists them."""
    return tuple(suffix for name in formats for suffix in _SUFFIXES.get(name, (f".{name.lower()}",)))


def is_named(path: Path, endings: tuple[str, ...]) -> bool:
    """True if the name ends so, in either case. The companions that macOS writes (`._photo.jpg`) never do."""
    return path.name.lower().endswith(endings) and not path.name.startswith("._")


def fits(parts: Sequence[str], pattern: Sequence[str], *, begins: bool = False) -> bool:
    """True if the parts of a path fit a pattern, in either case; `**` is any number of folders.

    With `begins`, also if the parts of a path below could.
    """
    if not parts:
        return begins or set(pattern) <= {"**"}
    if not pattern:
        return False
    rest = pattern[1:]
    if pattern[0] == "**":
        return any(fits(parts[skipped:], rest, begins=begins) for skipped in range(len(parts) + 1))
    return fnmatchcase(parts[0].lower(), pattern[0].lower()) and fits(parts[1:], rest, begins=begins)


def walk(
    folder: Path, follow_links: bool, enters: Callable[[Path], bool] = lambda _: True
) -> Iterator[tuple[Path, str | None]]:
    """Yields the files below a folder, at any depth, and each folder that it does not enter, with the reason.

    The reason is None for a file, and for a folder that `enters` declines. Special files have one too. A link to a file
    is a file, even if that is gone: reading it says so.
    """
    waiting, entered = [folder], set()
    while waiting:
        here = waiting.pop()
        try:
            status = here.stat()
            if (status.st_dev, status.st_ino) in entered:
                yield here, ENTERED
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(here) as entries:
                for entry in entries:
                    path, linked = Path(entry.path), entry.is_symlink()
                    is_folder = path.is_dir() if linked else entry.is_dir()
                    if is_folder and linked and not follow_links:
                        yield path, LINKED
                    elif is_folder and enters(path):
                        waiting.append(path)
                    else:
                        plain = is_folder or (not path.exists() or path.is_file() if linked else entry.is_file())
                        yield path, None if plain else SPECIAL
        except OSError as error:
            yield here, error.strerror


@dataclass(slots=True)
class Names:
    """Counts files, and keeps a few of their names."""

    count: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """One more."""
        self.count += 1
        if len(self.shown) < SHOWN:
            self.shown.append(name)

    def __str__(self) -> str:
        more = self.count - len(self.shown)
        return ", ".join(self.shown) + (f" and {more:,} more" if more else "")
