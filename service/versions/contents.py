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
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "*.bin.index.json")
"""The weights once more in other formats, and what a training left: an engine reads the safetensors."""
_MODEL = ("model*.safetensors",)
"""Where a source has files of these names, its other safetensors do not count: `consolidated`, `adapter_model`."""
_FOLDERS_READ = ("additional_chat_templates",)
"""An engine reads no other folder of a checkpoint: `original`, `checkpoint-500`, `onnx` and the like do not count."""
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


def ignored(folder: str, names: list[str]) -> set[str]:
    """The names that do not belong to a checkpoint, as `shutil.copytree` asks for them."""
    folders = [name for name in names if Path(folder, name).is_dir()]
    files = [name for name in names if name not in folders]
    return {*names} - {*_counting_folders(folders), *_without_other_weights(_counting_files(files))}


def ignored_with_weights(folder: str, names: list[str]) -> set[str]:
    """As `ignored`, and the weights."""
    return ignored(folder, names) | {name for name in names if _fits(name, _WEIGHTS)}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that belong to a checkpoint, in order."""
    names = _counting_files([path.name for path in folder.glob("*.safetensors")])
    return [folder / name for name in sorted(_without_other_weights(names))]


def left_out(source: Path) -> list[str]:
    """The names in a checkpoint's directory that somebody may miss in the version that is made of it."""
    names = sorted(path.name for path in source.iterdir() if not _fits(path.name, _NOT_CONTENT))
    return [name for name in names if name in ignored(str(source), names)]


def hashes(folder: Path) -> dict[str, str]:
    """The sha256 of every file of a checkpoint, by relative name. Raises VersionError (`unreadable_file`)."""
    names = _without_other_weights([*_names(folder, follow_links=True)])
    return {name: _sha256(folder, name) for name in sorted(names)}


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
            own = (name for name in folders if not follow_links and not _fits(name, _NOT_CONTENT))
            links = [name for name in own if Path(parent, name).is_symlink()]
            folders[:] = _counting_folders(folders)
            for path in (Path(parent, name) for name in (*links, *_counting_files(files))):
                if path.is_symlink() or path.is_file():
                    yield path.relative_to(folder).as_posix()
    except OSError as error:
        raise VersionError("unreadable_file", f"{Path(error.filename or '').name} cannot be read") from None


def _counting_folders(names: list[str]) -> list[str]:
    return [name for name in names if name in _FOLDERS_READ]


def _counting_files(names: list[str]) -> list[str]:
    return [name for name in names if not _fits(name, (*_NOT_CONTENT, *_OTHER_WEIGHTS))]


def _without_other_weights(names: list[str]) -> list[str]:
    weights = [name for name in names if _fits(name, _WEIGHTS[:1])]
    model = [name for name in weights if _fits(name, _MODEL)]
    return [name for name in names if name in model or name not in weights] if model else names


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name.lower(), pattern) for pattern in patterns)


def _fail(error: OSError) -> None:
    raise error


def _sha256(folder: Path, name: str) -> str:
    try:
        with (folder / name).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise VersionError("unreadable_file", f"{name} cannot be read ({error.strerror})") from None
