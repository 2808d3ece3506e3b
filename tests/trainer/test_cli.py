"""The trainer's command line as a user meets it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.cli import app

Trainer = Callable[..., tuple[int, str]]


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Trainer:
    """Runs the command in this process: torch is imported once. Returns the exit code and the errors' words."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["evoquality-trainer", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            app()
        return end.value.code, capsys.readouterr().err.replace("\n", "")

    return call


def test_help_explains_every_setting_of_a_round() -> None:
    command = [sys.executable, "-m", "trainer.cli", "evolve", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for phrase in ("--pool", "--learning-rate", "K of the offline stage", "Exit codes"):
        assert phrase in shown


def test_a_pool_that_does_not_exist_is_named(trainer: Trainer, tmp_path: Path) -> None:
    code, said = trainer("evolve", "--pool", tmp_path / "none", "--run", tmp_path / "run")
    assert code == 2
    assert "none is not a folder" in said


def test_an_impossible_setting_is_named(trainer: Trainer, tmp_path: Path) -> None:
    code, said = trainer("evolve", "--pool", tmp_path, "--run", tmp_path / "run", "--votes", 3)
    assert code == 2
    assert "--votes" in said
    assert "multiple of 2" in said


def test_a_folder_without_benchmarks_is_named(trainer: Trainer, tmp_path: Path) -> None:
    code, said = trainer("evaluate", "--benchmarks", tmp_path)
    assert code == 2
    assert "no benchmark below" in said


def test_a_store_without_the_operators_key_is_reported_with_what_to_do(trainer: Trainer, tmp_path: Path) -> None:
    code, said = trainer("evolve", "--pool", tmp_path, "--run", tmp_path / "run", "--store", tmp_path)
    assert code == 2
    assert "--store must be the running service's store" in said


def test_a_service_that_is_not_there_is_reported_without_a_traceback(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.client.retries._wait", lambda state: 0)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").touch()
    (tmp_path / "labels.csv").write_text("image,mos\na.png,3\n")
    code, said = trainer("evaluate", "--benchmarks", tmp_path.parent, "--service", "http://127.0.0.1:9")
    assert code == 3
    assert "cannot be reached" in said
    assert "Traceback" not in said
