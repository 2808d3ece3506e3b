"""The files of a checkpoint: which of them count, their hashes, and the id that these give."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from service.errors import VersionError

MANIFEST = "manifest.json"
_OF_DESKTOPS = ("thumbs.db", "ehthumbs*.db", "desktop.ini", "__macosx", "@eadir", "icon\r")
_NOT_CONTENT = (MANIFEST, ".*", "*.tmp", "*~", "#*#", "__pycache__", *_OF_DESKTOPS)
"""What desktops, editors and servers leave in a folder. No engine reads it; it is neither copied nor verified."""


def counts(name: str) -> bool:
    """True if a file or folder of this name belongs to a checkpoint."""
    return not any(fnmatchcase(name.lower(), pattern) for pattern in _NOT_CONTENT)


def ignored(_: str, names: list[str]) -> set[str]:
    """The names that do not belong to a checkpoint, as `shutil.copytree` asks for them."""
    return {name for name in names if not counts(name)}


def hashes(folder: Path) -> dict[str, str]:
    """The sha256 of every file of a checkpoint, by relative name. Raises VersionError (`unreadable_file`)."""
    return {name: _sha256(folder, name) for name in sorted(_names(folder, follow_links=True))}


def content_id(source: Path) -> str:
    """The id of the version that a checkpoint's directory gives. Raises as `hashes` does."""
    return id_of(hashes(source))


def id_of(files: Mapping[str, str]) -> str:
    """The id of the version with these hashes."""
    return "v" + hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()[:12]


def check_unchanged(folder: Path, files: Mapping[str, str]) -> None:
    """Compares a folder with its hashes. Raises VersionError: `hash_mismatch` (the first file), `unreadable_file`."""
    for name in sorted({*files, *_names(folder, follow_links=False)}):
        path = folder / name
        if path.resolve() != path.parent.resolve() / path.name:
            raise VersionError("hash_mismatch", f"{name} is a link")
        if name not in files:
            raise VersionError("hash_mismatch", f"the manifest does not name the file {name}")
        if not path.is_file():
            raise VersionError("hash_mismatch", f"{name} is missing")
        if _sha256(folder, name) != files[name]:
            raise VersionError("hash_mismatch", f"{name} was altered")


def _names(folder: Path, *, follow_links: bool) -> Iterator[str]:
    try:
        for parent, folders, files in os.walk(folder, onerror=_fail, followlinks=follow_links):
            folders[:] = filter(counts, folders)
            links = (name for name in folders if not follow_links and Path(parent, name).is_symlink())
            for path in (Path(parent, name) for name in (*links, *filter(counts, files))):
                if path.is_symlink() or path.is_file():
                    yield path.relative_to(folder).as_posix()
    except OSError as error:
        raise VersionError("unreadable_file", f"{Path(error.filename or '').name} cannot be read") from None


def _fail(error: OSError) -> None:
    raise error


def _sha256(folder: Path, name: str) -> str:
    try:
        with (folder / name).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise VersionError("unreadable_file", f"{name} cannot be read ({error.strerror})") from None
