"""Code that a checkpoint brings along never runs."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import EMBEDDED

ROOT = Path(__file__).parents[1]
LOADERS = {"from_pretrained", "from_config", "AsyncEngineArgs", "EngineArgs", "LLM", "pipeline", "get_tokenizer"}
"""Calls that read a checkpoint's configuration, which may name code to run."""


def loading_calls(tree: ast.AST) -> Iterator[ast.Call]:
    for call in ast.walk(tree):
        if isinstance(call, ast.Call):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name in LOADERS:
                yield call


def careless(source: str) -> list[int]:
    """Lines with a call that does not say that it runs no code."""
    return [
        call.lineno
        for call in loading_calls(ast.parse(source))
        if not any(
            key.arg == "trust_remote_code" and isinstance(key.value, ast.Constant) and key.value.value is False
            for key in call.keywords
        )
    ]


def test_every_call_that_loads_says_that_no_code_is_to_run():
    sources = [path for folder in ("service", "trainer", "tests") for path in (ROOT / folder).rglob("*.py")]
    assert {str(path): lines for path in sources if (lines := careless(path.read_text()))} == {}
    assert sum(len(list(loading_calls(ast.parse(path.read_text())))) for path in sources) > 15


@pytest.mark.parametrize(
    "line", ["A.from_pretrained(x)", "A.from_pretrained(x, trust_remote_code=True)", "AsyncEngineArgs(model=x, **y)"]
)
def test_a_call_that_does_not_say_it_is_found(line: str):
    assert careless(line) == [1]


@pytest.fixture
def armed(tmp_path: Path) -> tuple[Path, Path]:
    """The embedded checkpoint with code that leaves a trace, named by every file that may name some."""
    checkpoint, trace = tmp_path / "armed", tmp_path / "trace"
    shutil.copytree(EMBEDDED, checkpoint)
    code = f"open({str(trace)!r}, 'w').close()\n"
    for name in ("Config", "Processor", "ImageProcessor", "Tokenizer", "Model"):
        code += f"class {name}: pass\n"
    (checkpoint / "code.py").write_text(code)
    for file, classes in {
        "config.json": {"AutoConfig": "code.Config", "AutoModelForImageTextToText": "code.Model"},
        "processor_config.json": {"AutoProcessor": "code.Processor", "AutoImageProcessor": "code.ImageProcessor"},
        "preprocessor_config.json": {"AutoImageProcessor": "code.ImageProcessor", "AutoProcessor": "code.Processor"},
        "tokenizer_config.json": {"AutoTokenizer": ["code.Tokenizer", None], "AutoProcessor": "code.Processor"},
    }.items():
        path = checkpoint / file
        said = json.loads(path.read_text()) if path.exists() else {}
        unknown = {"processor_class": "Processor"} if "processor_class" in said else {}  # a known one would be taken
        path.write_text(json.dumps({**said, **unknown, "auto_map": classes}))
    return checkpoint, trace


LOADS = {
    "the trainer's processor": "from trainer.training.network import _processor; _processor(path, {})",
    "the trainer's model": "from trainer.training.network import load_model; load_model(path, 'auto')",
    "the trainer's type": "from trainer.training.policy import _dtype; _dtype(path)",
}


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
@pytest.mark.slow
def test_a_yes_on_standard_input_runs_no_code_in_the_trainer(load: str, armed: tuple[Path, Path]):
    _run_with_yes([sys.executable, "-c", f"from pathlib import Path; path = Path({str(armed[0])!r}); {load}"])
    assert not armed[1].exists()


@pytest.mark.slow
def test_the_trap_springs_where_code_is_trusted(armed: tuple[Path, Path]):
    """So that the other tests can fail."""
    load = f"from transformers import AutoProcessor; AutoProcessor.from_pretrained({str(armed[0])!r})"
    _run_with_yes([sys.executable, "-c", load])
    assert armed[1].exists()


@pytest.mark.engine
def test_a_yes_on_standard_input_runs_no_code_in_the_service(armed: tuple[Path, Path], tmp_path: Path):
    """Whether it serves this checkpoint or refuses it: it is ended at the first answer, or has ended."""
    from tests.engine.running import SERVE, running

    with (tmp_path / "yes").open("w") as file:
        file.write("y\n" * 100)
    environment = {"EVOQUALITY_CHECKPOINT": str(armed[0])}
    command = ["sh", "-c", f'exec "$@" < {tmp_path / "yes"}', "sh", *SERVE]
    try:
        with running(tmp_path / "store", tmp_path / "log", environment, command) as service:
            assert service.public.info().version
    except RuntimeError as ended:
        assert "the service exited with" in str(ended)
    assert not armed[1].exists()


def _run_with_yes(command: list[str]) -> None:
    """Runs a command, whose outcome is its own, with a yes to whatever it asks."""
    subprocess.run(command, input="y\n" * 100, text=True, capture_output=True, timeout=300, check=False, cwd=ROOT)
