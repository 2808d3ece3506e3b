"""The image files that a command works on."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from evoquality import Client
from service.commands.common import err, stop
from service.files import printable
from service.folders import ENTERED, LINKED, SPECIAL, Names, fits, is_named, suffixes, walk

_BY_NAME = "by their names"


@dataclass(frozen=True, slots=True)
class Images:
    """Image files, each once. `complete` is False if a folder could not be read."""

    files: list[Path]
    complete: bool


def images_in(client: Client, paths: Sequence[Path], pattern: str | None, follow_links: bool) -> Images:
    """The files in `paths`, and those in its folders at any depth, in order of their names.

    In a folder, `pattern` selects the files; without it, the suffixes of the formats that the service reads. Says what
    is passed over. Ends the command if there are no files.
    """
    folders = [path for path in paths if path.is_dir()]
    endings = suffixes(client.info().formats) if folders and pattern is None else ()
    wanted = ("**", *PurePath(pattern).parts) if pattern else ()
    found: dict[str, Path] = {}
    passed: defaultdict[str, Names] = defaultdict(Names)
    for path in paths:
        below = sorted(walk(path, follow_links)) if path in folders else [(path, None)]
        for file, reason in below:
            named = fits(file.relative_to(path).parts, wanted) if pattern else is_named(file, endings)
            if path in folders and not named and reason in {None, SPECIAL}:
                passed[_BY_NAME].add(printable(file))
            elif reason:
                passed[reason].add(printable(file))
            else:
                found.setdefault(os.path.abspath(file), file)
    for reason, names in passed.items():
        err.print(f"Passed over ({reason}): {names}", markup=False, highlight=False, soft_wrap=True)
    if not found:
        stop(f"No image files found. In folders, names must match {pattern or ', '.join(endings)}.")
    return Images(list(found.values()), passed.keys() <= {_BY_NAME, LINKED, ENTERED, SPECIAL})
