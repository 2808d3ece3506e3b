"""The contract is light: whoever calls the service needs no torch and no vLLM."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[2] / "service"
LIGHT = (
    "contract", "prompts", "answers", "errors", "client", "calls", "versions", "preflight",
    "settings", "app", "cli", "server", "reference",
)  # fmt: skip


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


def test_imports_point_from_the_api_to_the_judge_to_the_engine():
    forbidden = {"engine.py": {"judge", "api", "app"}, "judge.py": {"api", "app"}, "contract.py": {"api", "judge"}}
    for name, modules in forbidden.items():
        tree = ast.parse((SERVICE / name).read_text())
        sources = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {f"service.{module}" for module in modules} & sources


def _imported(file: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(file.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}
