"""The contract is light: whoever calls the service needs no torch and no vLLM."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.imports import heavy_after

SERVICE = Path(__file__).parents[2] / "service"
LIGHT = (
    "contract", "prompts", "answers", "errors", "client", "versions.store", "versions.preflight",
    "configuration.settings", "app", "cli", "server", "reference",
)  # fmt: skip
ORDER = ("observability", "images", "configuration", "engine", "versions", "judging", "ranking", "api")
"""The packages that serve: each may import those before it, and what all share."""
SHARED = {"contract", "prompts", "answers", "errors", "concurrency", "files"}


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    return heavy_after([f"service.{module}" for module in LIGHT])


@pytest.mark.parametrize("module", LIGHT)
def test_importing_it_loads_neither_torch_nor_vllm_nor_transformers(loaded: dict[str, list[str]], module: str):
    assert loaded[f"service.{module}"] == []


def test_only_the_engine_imports_vllm_and_nobody_the_trainer():
    importers = {"vllm": set(), "trainer": set()}
    for file in SERVICE.rglob("*.py"):
        for package in _imported(file) & importers.keys():
            importers[package].add(file.name)
    assert importers == {"vllm": {"vllm_engine.py", "vllm_worker.py"}, "trainer": set()}


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_from_the_api_to_judging_to_the_engine(package: str):
    assert _parts(package) <= {*ORDER[: ORDER.index(package)], *SHARED}


def test_the_client_knows_the_contract_alone():
    assert _parts("client") == {"contract"}


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
