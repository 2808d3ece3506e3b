"""What the pure parts of the trainer may import."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "vllm", "peft"}


@pytest.mark.parametrize(
    "module",
    [
        "trainer.reward", "trainer.pairs", "trainer.vote", "trainer.pool", "trainer.gate", "trainer.distortions",
        "trainer.settings", "trainer.report", "trainer.evaluation.evaluate", "trainer.cli",
    ],
)  # fmt: skip
def test_pure_parts_import_no_model_library(module: str) -> None:
    code = f"import sys, {module}; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_round_never_imports_what_knows_the_truth() -> None:
    names = ("demo.truth", "demo.pictures", "evaluation.benchmark", "evaluation.audit")
    knowing = {f"trainer.{name}" for name in names}
    code = f"import sys, trainer.round; print(sorted({knowing!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
