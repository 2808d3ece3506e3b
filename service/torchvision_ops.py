"""Lets torchvision import beside a CPU torch when its native library was built for CUDA.

PyPI's torchvision for x86-64 Linux is the CUDA build. Beside a CPU torch its library does not load, and
`import torchvision` dies with "operator torchvision::nms does not exist", taking transformers' Qwen2.5-VL
processor with it. Declaring the two operators first lets the pure-Python transforms work; nothing here calls
the operators. It must happen before the first import of torchvision in *every* process, vLLM's child processes
included. So the package installs a copy of this file as `evoquality_torchvision_ops`, which Python imports at its
start (`build_commands.py`). That costs one entry in `sys.meta_path`; where torchvision loads natively, nothing is
declared.
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


class _BeforeTorchvision:
    """A finder that finds nothing, but runs before `import torchvision`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            declare_missing_operators()
        return None


_library: object | None = None  # torch drops the declarations together with this object


def declare_missing_operators() -> None:
    """Declares torchvision's operators if its native library cannot be loaded by this torch."""
    global _library
    import torch

    spec = PathFinder.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations or _native_library_loads(spec.submodule_search_locations[0]):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in _OPERATORS:
        library.define(operator)
    _library = library


def _native_library_loads(package: str) -> bool:
    import ctypes
    from pathlib import Path

    try:
        for native in Path(package).glob("_C*.so"):
            ctypes.CDLL(str(native))
    except OSError:
        return False
    return True


if not any(isinstance(finder, _BeforeTorchvision) for finder in sys.meta_path):
    sys.meta_path.insert(0, _BeforeTorchvision())
