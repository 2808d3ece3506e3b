"""The contract is light: a caller of the service needs neither torch nor vLLM."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.imports import heavy_after

SERVICE = Path(__file__).parents[2] / "service"
LIGHT = (
    "evoquality",
    "evoquality.contract",
    "service.prompts",
    "service.answers",
    "service.errors",
    "service.versions.store",
    "service.versions.preflight",
    "service.configuration.settings",
    "service.app",
    "service.cli",
    "service.server",
    "tests.reference",
)
ORDER = ("observability", "images", "configuration", "engine", "versions", "judging", "ranking", "api")
"""The packages that serve: each may import those before it, and what all share."""
SHARED = {"prompts", "answers", "errors", "extras", "concurrency", "files", "processes"}


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    return heavy_after(LIGHT)


@pytest.mark.parametrize("module", LIGHT)
def test_importing_it_loads_neither_torch_nor_vllm_nor_transformers(loaded: dict[str, list[str]], module: str):
    assert loaded[module] == []


def test_only_the_engine_imports_vllm_and_nobody_the_trainer():
    importers = {"vllm": set(), "trainer": set()}
    for file in SERVICE.rglob("*.py"):
        for package in _imported(file) & importers.keys():
            importers[package].add(file.name)
    assert importers == {"vllm": {"vllm_engine.py", "vllm_worker.py"}, "trainer": set()}


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_from_the_api_to_judging_to_the_engine(package: str):
    assert _parts(package) <= {*ORDER[: ORDER.index(package)], *SHARED}


def test_the_client_imports_nothing_of_the_service():
    assert not _parts("client/evoquality")


def _parts(package: str) -> set[str]:
    """The other parts of the service that are loaded with a package."""
    files = [ast.parse(file.read_text()) for file in (SERVICE / package).rglob("*.py")]
    imports = [node for tree in files for node in tree.body if isinstance(node, ast.ImportFrom)]
    names = [f"{node.module}.{alias.name}".split(".") for node in imports for alias in node.names]
    return {name[1] for name in names if name[0] == "service"} - {package}


def _imported(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}
