"""No module of the product imports another in a circle, not even later or for types only."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_there_is_no_import_circle():
    graph = {
        _name(file): set(_imported(file)) for room in ("service", "trainer") for file in (ROOT / room).rglob("*.py")
    }
    assert graph["service.app"] > {"service.api.service"}, "the imports are not seen"
    TopologicalSorter(graph).prepare()


def _name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imported(file: Path) -> set[str]:
    """The modules of the product that a file imports anywhere in it."""
    nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
    names = [(f"{node.module}.{alias.name}", str(node.module)) for node in nodes for alias in node.names]
    return {module if _exists(module) else package for module, package in names if _exists(package)}


def _exists(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
