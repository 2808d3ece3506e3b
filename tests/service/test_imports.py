"""The contract is light: whoever calls the service needs no torch and no vLLM."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[2] / "service"
LIGHT = (
    "contract", "prompts", "answers", "errors", "client", "versions.store", "versions.preflight",
    "configuration.settings", "app", "cli", "server", "reference",
)  # fmt: skip
ORDER = ("observability", "images", "configuration", "engine", "versions", "judging", "ranking", "api")
"""The packages that serve: each may import those before it, and what all share."""
SHARED = {"contract", "prompts", "answers", "errors", "together"}


@pytest.mark.parametrize("module", LIGHT)
def test_importing_it_loads_neither_torch_nor_vllm_nor_transformers(module: str):
    code = f"import sys, service.{module}; print({{'torch', 'vllm', 'transformers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_only_the_engine_imports_vllm_and_nobody_the_trainer():
    importers = {"vllm": set(), "trainer": set()}
    for file in SERVICE.rglob("*.py"):
        for package in _imported(file) & importers.keys():
            importers[package].add(file.name)
    assert importers == {"vllm": {"vllm_engine.py", "vllm_lora.py"}, "trainer": set()}


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
