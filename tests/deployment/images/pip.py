"""This machine's own settings of pip, for the steps of a build: mirrors, folders of wheels, certificates."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path


def settings() -> dict[str, str]:
    """What pip goes by here, by name; the environment goes before the files, as it does for pip."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    pairs = [line.split("=", 1) for line in listed.stdout.splitlines()]
    ours = [(key, value) for key, value in pairs if key.startswith(("global.", ":env:.", "install."))]
    ours.sort(key=lambda pair: pair[0].startswith(":env:."))
    return {key.rsplit(".", 1)[1]: ast.literal_eval(value) for key, value in ours}


def volumes(folder: Path) -> list[str]:
    """Options of `buildah build` that let its steps install as this machine does. Writes a pip.conf into `folder`."""
    found = settings()
    file = folder / "pip.conf"
    file.write_text("\n".join(["[global]", *(f"{name} = {value}" for name, value in found.items())]) + "\n")
    mounts = {str(file): "/etc/pip.conf"} | {path: path for value in found.values() for path in _paths(value)}
    return [f"--volume={here}:{there}:ro" for here, there in mounts.items()]


def _paths(value: str) -> list[str]:
    """The folders and files here that a setting names. An index of files links to its neighbours, so with them."""
    named = [Path(word.removeprefix("file://")) for word in value.split()]
    whole = [path.parent if f"file://{path}" in value else path for path in named]
    return [str(path) for path in whole if path.is_absolute() and path.exists()]
