"""Weights that the trainer hands over to a rollout engine: safetensors in a folder that both can read."""

from __future__ import annotations

import re
from pathlib import Path

from service.errors import UnknownWeights

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def handed_over(folder: Path, name: str) -> Path:
    """The directory `<folder>/<name>`. Raises UnknownWeights if it is missing, or it or a file in it lies elsewhere."""
    path = folder.resolve() / name
    if not _NAME.fullmatch(name) or not path.is_dir():
        raise UnknownWeights("No weights of this name were handed over; do service and trainer share the folder?")
    if any(file.resolve() != file for file in (path, *path.iterdir())):
        raise UnknownWeights("Handed-over weights may not be links.")
    return path
