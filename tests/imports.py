"""The modules that a module loads, found out in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

HEAVY = ("torch", "transformers", "vllm", "peft")
_IMPORT = """
import importlib, json, sys
heavy, modules = json.loads(sys.argv[1])
loaded = {}
for module in modules:
    importlib.import_module(module)
    loaded[module] = [name for name in heavy if name in sys.modules]
print(json.dumps(loaded))
"""


def heavy_after(modules: Sequence[str], heavy: Sequence[str] = HEAVY) -> dict[str, list[str]]:
    """The heavy libraries that are loaded once a module and those before it are: none, or the first is at fault."""
    command = [sys.executable, "-c", _IMPORT, json.dumps([heavy, modules])]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
