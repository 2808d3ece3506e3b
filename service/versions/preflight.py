"""Checks on disk before an engine loads a version, an adapter or weights that the trainer hands over.

vLLM silently keeps old tensors where a checkpoint lacks some, and may silently cut a tensor of a wrong shape to fit.
A failed load leaves the engine unusable. So headers and values are checked here first; only numpy is needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evoquality.contract import VersionInfo
from service.errors import AdapterRefused, UnknownWeights, VersionError
from service.versions.contents import weight_files
from service.versions.meaning import meaning
from service.versions.store import VersionStore

_LAYOUTS = {"F64": "<u8", "F32": "<u4", "F16": "<u2", "BF16": "<u2"}
_EXPONENTS = {"F64": 0x7FF0 << 48, "F32": 0x7F80 << 16, "F16": 0x7C00, "BF16": 0x7F80}
_CHUNK = 1 << 22
_LORA_NAME = re.compile(r"\.lora_([AB])\.weight$")
_INDEX = "model.safetensors.index.json"
_HANDOVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Tensor(NamedTuple):
    """A tensor as a safetensors header describes it; offsets count from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int


class Form(NamedTuple):
    """What must be alike for one checkpoint to replace another in a running engine, in either direction."""

    tensors: Mapping[str, Tensor]
    meaning: Mapping[str, str]


def form(folder: Path) -> Form:
    """Reads a checkpoint's headers and small files. Raises VersionError (`unreadable_weights`, `unreadable_file`)."""
    try:
        return Form(read_headers(folder), meaning(folder))
    except (OSError, RecursionError):
        raise VersionError("unreadable_file", "a file beside the weights cannot be read") from None


def check_servable(store: VersionStore, version: str) -> VersionInfo:
    """Verifies every file of a version, and that it was not refused.

    Raises UnknownVersion, or VersionError (`refused`, and as `VersionStore.verify` does).
    """
    store.verify(version)
    if reason := store.refusal(version):
        raise VersionError("refused", f"{reason}. Remove its mark in the store's folder `refused` to allow it")
    return store.info(version)


def check_candidate(store: VersionStore, version: str, running: Form) -> VersionInfo:
    """Refuses a version that must not serve, or that cannot replace `running`. Takes seconds for each gigabyte.

    Raises as `check_servable` and `check_weights` do.
    """
    info = check_servable(store, version)
    check_weights(store.path(version), running)
    return info


def check_weights(candidate: Path, running: Form) -> None:
    """Refuses a candidate whose weights could not replace those of a running engine.

    Raises VersionError: `missing_directory`, `different_files`, and as `form` and `check_tensors` do.
    """
    if not candidate.is_dir():
        raise VersionError("missing_directory", "the version has no directory")
    check_tensors(candidate, running)
    new, old = form(candidate).meaning, running.meaning
    if different := sorted(name for name in new.keys() | old.keys() if new.get(name) != old.get(name)):
        raise VersionError(
            "different_files",
            f"{different[0]} does not mean what the running version's means; a swap replaces weights only",
        )


def check_tensors(candidate: Path, running: Form) -> None:
    """Refuses tensors that are not finite, or not those of the running engine by name, shape and type.

    Raises VersionError: `unreadable_weights`, `missing_tensor`, `extra_tensor`, `wrong_shape`, `wrong_dtype`,
    `not_finite`, `bad_index`.
    """
    new, old = read_headers(candidate), running.tensors
    if missing := sorted(old.keys() - new.keys()):
        raise VersionError("missing_tensor", f"{len(missing)} missing, the first is {missing[0]}")
    if extra := sorted(new.keys() - old.keys()):
        raise VersionError("extra_tensor", f"{len(extra)} unknown, the first is {extra[0]}")
    for name, tensor in new.items():
        if tensor.shape != old[name].shape:
            raise VersionError("wrong_shape", f"{name} is {tensor.shape}, not {old[name].shape}")
        if tensor.dtype != old[name].dtype:
            raise VersionError("wrong_dtype", f"{name} is {tensor.dtype}, not {old[name].dtype}")
    for name, tensor in new.items():
        if not is_finite(tensor):
            raise VersionError("not_finite", f"{name} holds NaN or infinity")
    _check_index(candidate, new)


def check_adapter(adapter: Path, max_rank: int) -> None:
    """Refuses an adapter the engine would choke on. Raises AdapterRefused.

    `adapter` is a PEFT directory; its tensors must be finite LoRA pairs of one rank of at most `max_rank`.
    """
    if any(file.is_symlink() for file in adapter.rglob("*")):
        raise AdapterRefused("An adapter may not hold links; put the files themselves into its directory.")
    try:
        rank = int(json.loads((adapter / "adapter_config.json").read_bytes())["r"])
        tensors = read_headers(adapter)
    except (OSError, ValueError, KeyError, TypeError, VersionError):
        raise AdapterRefused("The directory holds no readable PEFT adapter.") from None
    if not 1 <= rank <= max_rank:
        raise AdapterRefused(f"The rank is {rank}; this service takes 1 to {max_rank}.")
    for name, tensor in tensors.items():
        if "visual." in name:
            raise AdapterRefused("The engine ignores adapters of the vision tower; adapt the language model.")
        half = _LORA_NAME.search(name)
        axis = 0 if half and half[1] == "A" else 1
        if not half or len(tensor.shape) != 2 or tensor.shape[axis] != rank:
            raise AdapterRefused(f"{name} is not a LoRA matrix of rank {rank}.")
        if name.replace("lora_A", "lora_B") not in tensors or name.replace("lora_B", "lora_A") not in tensors:
            raise AdapterRefused(f"{name} has no matching lora_A or lora_B matrix.")
        if not is_finite(tensor):
            raise AdapterRefused(f"{name} holds NaN or infinity.")


def handed_over(folder: Path, name: str) -> Path:
    """The directory `<folder>/<name>` with safetensors that the trainer wrote for a rollout engine.

    Raises UnknownWeights if it is missing, or if it or a file in it is a link, or weights that do not count are there.
    """
    path = folder.resolve() / name
    if not _HANDOVER.fullmatch(name) or not path.is_dir():
        raise UnknownWeights("No weights of this name were handed over; do service and trainer share the folder?")
    if any(file.resolve() != file for file in (path, *path.iterdir())):
        raise UnknownWeights("Handed-over weights may not be links.")
    if {*path.glob("[!.]*.safetensors")} - {*weight_files(path)}:
        raise UnknownWeights("Handed-over weights may have no others beside them, which the engine would load too.")
    return path


def read_headers(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the folder's safetensors files. Raises VersionError (`unreadable_weights`)."""
    files = weight_files(folder)
    if not files:
        raise VersionError("unreadable_weights", "there is no safetensors file")
    return dict(entry for file in files for entry in _header(file))


def is_finite(tensor: Tensor) -> bool:
    """True if no value is NaN or infinite, which have an exponent of all ones in every floating-point format."""
    if tensor.dtype not in _LAYOUTS:
        return True
    layout = np.dtype(_LAYOUTS[tensor.dtype])
    exponent = layout.type(_EXPONENTS[tensor.dtype])
    count = (tensor.end - tensor.begin) // layout.itemsize
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.begin)
        for start in range(0, count, _CHUNK):
            bits = np.fromfile(stream, layout, min(_CHUNK, count - start))
            if bool(((bits & exponent) == exponent).any()):
                return False
    return True


def _header(file: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            size = file.stat().st_size
            header: dict[str, Any] = json.loads(stream.read(min(length, size)))
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = (8 + length + int(offset) for offset in entry["data_offsets"])
                if not 8 + length <= begin <= end <= size:
                    raise ValueError("a tensor lies outside its file")
                yield name, Tensor(entry["dtype"], tuple(entry["shape"]), file, begin, end)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise VersionError("unreadable_weights", f"{file.name} is not a readable safetensors file") from None


def _check_index(candidate: Path, tensors: Mapping[str, Tensor]) -> None:
    """An index decides which files vLLM opens: one that leaves a file out would leave old tensors in place."""
    if not (candidate / _INDEX).exists():
        return
    try:
        named = dict(json.loads((candidate / _INDEX).read_bytes())["weight_map"])
    except (OSError, ValueError, KeyError, TypeError):
        named = {}
    if named != {name: tensor.file.name for name, tensor in tensors.items()}:
        raise VersionError("bad_index", f"{_INDEX} lists other tensors than the files hold")
