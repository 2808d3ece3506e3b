"""Imports between the trainer's rooms point one way, and its light parts load no model library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import trainer
from tests.imports import heavy_after

PURE = (
    "trainer.training.reward",
    "trainer.training.collapse",
    "trainer.voting.groups",
    "trainer.voting.votes",
    "trainer.voting.majority",
    "trainer.pool.pool",
    "trainer.pool.distortions",
    "trainer.promotion.criteria",
    "trainer.promotion.behaviour",
    "trainer.promotion.probe",
    "trainer.workers.workers",
    "trainer.leftovers",
    "trainer.settings.evolve",
    "trainer.reporting.report",
    "trainer.evaluation.benchmarks.load",
    "trainer.evaluation.evaluate",
    "trainer.evaluation.predictions",
    "trainer.evaluation.bootstrap",
    "trainer.evaluation.comparison.run",
    "trainer.cli",
)

TRAINER = Path(trainer.__file__).parent
ORDER = (
    "errors",
    "exit_codes",
    "files",
    "termination",
    "progress",
    "serving",
    "pool",
    "settings",
    "workers",
    "voting",
    "leftovers",
    "training",
    "promotion",
    "reporting",
    "evaluation",
    "stages",
    "round",
    "pricing",
    "evolve",
    "cli",
    "__main__",
    "torchrun",
    "demo",
)
"""Packages and top-level modules: each may import those before it."""
UPWARD = {
    ("promotion.agreement", "evaluation"),
    ("promotion.criteria", "evaluation"),
    ("promotion.probe", "evaluation"),
    ("reporting.rounds", "evaluation"),
}
"""The exceptions: the gate takes its interval from the bootstrap, its probe reads labelled benchmarks, and a round's
report counts cycles among its votes."""
KNOW_THE_TRUTH = (
    "demo.audit",
    "demo.benchmarks",
    "demo.truth",
    "evaluation.benchmarks",
    "evaluation.comparison",
    "evaluation.pseudo_labels",
    "promotion.probe",
)


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    return heavy_after(PURE)


@pytest.mark.parametrize("module", PURE)
def test_pure_parts_import_no_model_library(loaded: dict[str, list[str]], module: str) -> None:
    assert loaded[module] == []


@pytest.mark.parametrize("command", ["trainer.__main__", "trainer.torchrun"])
def test_a_command_listens_for_signals_before_it_loads_anything_that_takes_time(command: str) -> None:
    assert heavy_after([command], ["httpx", "pydantic", "rich", "torch"]) == {command: []}


def test_the_rooms_of_the_trainer_import_one_way() -> None:
    imports = {_name(file): _imported(file) for file in TRAINER.rglob("*.py") if file.name != "__init__.py"}
    assert {_room(module) for module in imports} <= set(ORDER)
    upward = {
        (module, _room(imported))
        for module, names in imports.items()
        for imported in names
        if ORDER.index(_room(imported)) > ORDER.index(_room(module))
    }
    assert upward == UPWARD


def test_a_round_never_imports_what_knows_the_truth() -> None:
    assert [name for name in KNOW_THE_TRUTH if not _exists(name)] == []
    reached = _reached("round", set())
    assert {"voting", "training", "stages"} <= {_room(module) for module in reached}
    assert [module for module in reached if module.startswith(KNOW_THE_TRUTH)] == []


def _reached(module: str, known: set[str]) -> set[str]:
    """The trainer's modules that a module imports, directly or indirectly, at import time or later."""
    file = TRAINER / f"{module.replace('.', '/')}.py"
    if module not in known and file.exists():
        known.add(module)
        for name in _imported(file):
            _reached(name, known)
    return known


def _imported(file: Path) -> set[str]:
    """Modules of the trainer that a file imports, without the leading `trainer.`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    inside = {name.removeprefix("trainer.") for name in names if name.startswith("trainer.")}
    return {name if _exists(name) else name.rpartition(".")[0] for name in inside}


def _exists(module: str) -> bool:
    path = TRAINER / module.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()


def _name(file: Path) -> str:
    return ".".join(file.relative_to(TRAINER).with_suffix("").parts)


def _room(module: str) -> str:
    return module.partition(".")[0]
