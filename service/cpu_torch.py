"""Lets transformers and vLLM import beside a CPU torch, when torch's companions were built for CUDA.

PyPI's torchvision, torchaudio and torchcodec for x86-64 Linux are CUDA builds. Beside a CPU torch their libraries do
not load: `import torchvision` dies with "operator torchvision::nms does not exist", the others with "Could not load
this library". Each takes transformers' Qwen2.5-VL processor, or vLLM, with it. So the two operators of torchvision are
declared first, which lets its pure-Python transforms work (nothing here calls the operators), and the other two are
made to look absent, which transformers and vLLM allow for: they are for sound and video. It must happen before the
first import in *every* process, vLLM's child processes included. So the package installs a copy of this file as
`evoquality_cpu_torch`, which Python imports at its start (`build_commands.py`). That costs one entry in
`sys.meta_path`; where the libraries load, nothing is changed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _BeforeCompanions:
    """A finder that finds nothing, but acts before the imports named in `_REMEDIES`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if remedy := _REMEDIES.pop(name, None):
            remedy()
        return None


_library: object | None = None  # torch drops the declarations together with this object


def declare_missing_operators() -> None:
    """Declares torchvision's operators if its native library cannot be loaded by this torch."""
    global _library
    if _loads("torchvision", "_C*.so"):
        return
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in _OPERATORS:
        library.define(operator)
    _library = library


def hide_unloadable_media() -> None:
    """Marks torchaudio and torchcodec as absent if their native libraries cannot be loaded by this torch."""
    for package, library in (("torchaudio", "lib/_torchaudio*.so"), ("torchcodec", "libtorchcodec_image*.so")):
        if not _loads(package, library):
            sys.modules[package] = None  # type: ignore[assignment]  # how Python itself spells "do not import this"


# transformers asks whether these exist before it imports them, so that remedy comes before transformers.
_REMEDIES = {"torchvision": declare_missing_operators, "transformers": hide_unloadable_media}


def _loads(package: str, libraries: str) -> bool:
    """True if torch can load the package's native libraries, or the package is not installed."""
    import ctypes
    from pathlib import Path

    spec = PathFinder.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return True
    import torch  # noqa: F401  # its libraries must be in the process before those that need them

    try:
        for native in Path(spec.submodule_search_locations[0]).glob(libraries):
            ctypes.CDLL(str(native))
    except OSError:
        return False
    return True


if not any(isinstance(finder, _BeforeCompanions) for finder in sys.meta_path):
    sys.meta_path.insert(0, _BeforeCompanions())
