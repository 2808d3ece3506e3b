"""The trainer's command line as a user meets it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def trainer(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trainer.cli", *arguments], capture_output=True, text=True, check=False
    )


def test_help_explains_every_setting_of_a_round() -> None:
    shown = trainer("evolve", "--help").stdout
    for phrase in ("--pool", "--learning-rate", "K of the offline stage", "Exit codes"):
        assert phrase in shown


def test_a_pool_that_does_not_exist_is_named(tmp_path: Path) -> None:
    done = trainer("evolve", "--pool", str(tmp_path / "none"), "--run", str(tmp_path / "run"))
    assert done.returncode == 2
    assert "none is not a folder" in done.stderr.replace("\n", "")


def test_an_impossible_setting_is_named(tmp_path: Path) -> None:
    done = trainer("evolve", "--pool", str(tmp_path), "--run", str(tmp_path / "run"), "--votes", "3")
    assert done.returncode == 2
    assert "--votes" in done.stderr
    assert "multiple of 2" in done.stderr


def test_a_folder_without_benchmarks_is_named(tmp_path: Path) -> None:
    done = trainer("evaluate", "--benchmarks", str(tmp_path))
    assert done.returncode == 2
    assert "no benchmark below" in done.stderr


def test_a_store_without_the_operators_key_is_reported_with_what_to_do(tmp_path: Path) -> None:
    done = trainer("evolve", "--pool", str(tmp_path), "--run", str(tmp_path / "run"), "--store", str(tmp_path))
    assert done.returncode == 2
    assert "--store must be the running service's store" in done.stderr


def test_a_service_that_is_not_there_is_reported_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").touch()
    (tmp_path / "labels.csv").write_text("image,mos\na.png,3\n")
    done = trainer("evaluate", "--benchmarks", str(tmp_path.parent), "--service", "http://127.0.0.1:9")
    assert done.returncode == 3
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
