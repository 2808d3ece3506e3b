"""The store and its pointer, moved as an operator moves it: by `evoquality versions`, without asking any replica."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from service.versions.store import VersionStore
from trainer.demo.checkpoints import perturbed

CHECKPOINT = Path("trainer/demo/checkpoint")
_NOISE = 0.05
"""Of the weights' own spread: every question tells the versions apart."""
_EVOQUALITY = str(Path(sys.executable).with_name("evoquality"))


def new_store(folder: Path) -> VersionStore:
    """A store with the embedded checkpoint, which is active."""
    _versions("import", str(CHECKPOINT), "--store", str(folder))
    return VersionStore(folder)


def add(store: VersionStore, seed: int) -> str:
    """A version that answers differently yet readably: the embedded weights with noise."""
    with TemporaryDirectory() as folder:
        source = perturbed(CHECKPOINT, Path(folder) / "checkpoint", seed, _NOISE)
        return store.add(source, parent=active(store), profile="plain", origin=f"noise {seed}").id


def damage(store: VersionStore, version: str) -> None:
    """Changes one byte of a version's weights, as a broken disk might."""
    with (store.path(version) / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))


def promote(store: VersionStore, version: str) -> float:
    """Returns when the pointer moved, in seconds since the epoch. Raises CalledProcessError if it was refused."""
    _versions("promote", version, "--store", str(store.root))
    return moved(store)


def rollback(store: VersionStore) -> float:
    """As `promote`, to the version before."""
    _versions("rollback", "--store", str(store.root))
    return moved(store)


def refuses(store: VersionStore, version: str) -> bool:
    """Whether the command will not point at a version, and has left the pointer where it was."""
    before = store.active()
    try:
        promote(store, version)
    except subprocess.CalledProcessError:
        return store.active() == before
    return False


def active(store: VersionStore) -> str:
    """The version that the pointer names."""
    pointer = store.active()
    assert pointer
    return pointer.version


def moved(store: VersionStore) -> float:
    """When the pointer moved last, in seconds since the epoch."""
    return (store.root / "ACTIVE").stat().st_mtime


def _versions(*arguments: str) -> None:
    subprocess.run([_EVOQUALITY, "versions", *arguments], check=True, capture_output=True)
