"""What the pure parts of the trainer may import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import trainer
from tests.imports import heavy_after

PURE = (
    "trainer.training.reward", "trainer.voting.groups", "trainer.voting.votes", "trainer.pool.pool",
    "trainer.pool.distortions", "trainer.promotion.criteria", "trainer.promotion.behaviour",
    "trainer.promotion.probe", "trainer.training.collapse", "trainer.workers.workers", "trainer.leftovers",
    "trainer.settings", "trainer.reporting.report",
    "trainer.evaluation.benchmarks.load", "trainer.evaluation.evaluate", "trainer.evaluation.asking",
    "trainer.evaluation.predictions", "trainer.cli",
    "trainer.evaluation.intervals", "trainer.evaluation.significance", "trainer.evaluation.comparison.run",
)  # fmt: skip


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    return heavy_after(PURE)


@pytest.mark.parametrize("module", PURE)
def test_pure_parts_import_no_model_library(loaded: dict[str, list[str]], module: str) -> None:
    assert loaded[module] == []


@pytest.mark.parametrize("command", ["trainer.__main__", "trainer.torchrun"])
def test_a_command_listens_for_signals_before_it_loads_anything_that_takes_time(command: str) -> None:
    assert heavy_after([command], ["httpx", "pydantic", "rich", "torch"]) == {command: []}


def test_a_round_never_imports_what_knows_the_truth() -> None:
    reached = _reached("trainer.round", set())
    assert {"trainer.voting.votes", "trainer.training.policy"} < reached
    knowing = (
        "demo.truth",
        "demo.pictures",
        "evaluation.benchmarks",
        "evaluation.pseudo_labels",
        "evaluation.comparison",
        "promotion.probe",
    )
    assert not [module for module in reached if module.removeprefix("trainer.").startswith(knowing)]


def _reached(module: str, known: set[str]) -> set[str]:
    """The trainer's modules that a module imports, itself or by others, at its beginning or later."""
    file = Path(trainer.__file__).parents[1] / f"{module.replace('.', '/')}.py"
    if module in known or not file.exists():
        return known
    known.add(module)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            _reached(name, known)
    return known
