"""The trainer's command line as a user meets it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from evoquality import ServiceError
from evoquality.contract import HealthResponse, Problem
from service import errors as of_service
from service.images.picture import Limits, from_text
from tests.service.conftest import Listening, listening, make_listening
from trainer.cli import app
from trainer.errors import TrainerError
from trainer.exit_codes import exit_codes

__all__ = ["listening", "make_listening"]

ROOT = Path(__file__).parents[2]
Trainer = Callable[..., tuple[int, str]]


def subclasses(kind: type[TrainerError]) -> Iterator[type[TrainerError]]:
    """The tree below a kind of error."""
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Trainer:
    """Runs the command in this process: torch is imported once. Returns the exit code and the errors' words."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["evoquality-trainer", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            app()
        return int(end.value.code or 0), capsys.readouterr().err.replace("\n", "")

    return call


def benchmark(folder: Path) -> Path:
    """The folder with a benchmark of one image, which nobody can read."""
    (folder / "set" / "images").mkdir(parents=True)
    (folder / "set" / "images" / "a.png").write_bytes(b"no picture")
    (folder / "set" / "labels.csv").write_text("image,mos\na.png,3\n")
    return folder


def test_help_explains_every_setting_of_a_round() -> None:
    command = [sys.executable, "-m", "trainer", "evolve", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for phrase in ("--pool", "--learning-rate", "K of the offline stage", "Exit codes"):
        assert phrase in shown


def test_a_pool_that_does_not_exist_is_named(trainer: Trainer, tmp_path: Path) -> None:
    code, said = trainer("evolve", "--pool", tmp_path / "none", "--run", tmp_path / "run")
    assert code == 2
    assert f"the pool {tmp_path / 'none'} is not a folder" in said


def test_an_impossible_setting_is_named(trainer: Trainer, tmp_path: Path) -> None:
    code, said = trainer("evolve", "--pool", tmp_path, "--run", tmp_path / "run", "--votes", 0)
    assert code == 2
    assert "--votes" in said
    assert "greater than or equal to 1" in said


def test_a_missing_flag_is_named_and_nothing_else_is_said(trainer: Trainer, tmp_path: Path) -> None:
    assert trainer("evolve", "--run", tmp_path / "run") == (2, "evoquality-trainer: --pool is required")


def test_a_folder_without_benchmarks_is_named(trainer: Trainer, tmp_path: Path) -> None:
    code, said = trainer("evaluate", "--benchmarks", tmp_path)
    assert code == 2
    assert "no benchmark in" in said


def test_a_store_without_the_operators_key_is_reported_with_what_to_do(trainer: Trainer, tmp_path: Path) -> None:
    code, said = trainer("evolve", "--pool", tmp_path, "--run", tmp_path / "run", "--store", tmp_path)
    assert code == 2
    assert "--store must be the running service's store" in said


def test_a_service_that_is_not_there_is_reported_without_a_traceback(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evoquality.retries._wait", lambda state: 0)
    code, said = trainer(
        "evaluate", "--benchmarks", benchmark(tmp_path), "--service", "http://127.0.0.1:9", "--out", tmp_path / "out"
    )
    assert code == 3
    assert "cannot be reached" in said
    assert "Traceback" not in said


def test_a_set_of_which_no_picture_can_be_read_says_that_there_is_no_correlation(
    trainer: Trainer, tmp_path: Path, listening: Listening
) -> None:
    sets, out = benchmark(tmp_path / "sets"), tmp_path / "out"
    code, said = trainer("evaluate", "--benchmarks", sets, "--service", listening.url, "--out", out)
    assert code == 2
    assert "no correlation" in said
    assert "The bytes are not a complete image" in said and "replace damaged files" in said and "--profile" not in said


@pytest.mark.parametrize(
    ("status", "problem", "expected"),
    [
        (401, "unauthorized", 2), (404, "http_error", 2), (409, "wrong_role", 2), (413, "body_too_large", 2),
        (422, "version_refused", 2), (408, "body_timeout", 3), (409, "version_conflict", 3), (429, "rate_limited", 3),
        (500, "internal_error", 3), (503, "too_busy", 3), (504, "deadline_exceeded", 3),
    ],
)  # fmt: skip
def test_the_exit_code_says_whether_a_refusal_may_pass(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, problem: str, expected: int
) -> None:
    def refused(*_: object, **__: object) -> None:
        rest = {"title": "Refused", "detail": "No.", "instance": "/", "request_id": "1"}
        raise ServiceError(Problem(status=status, code=problem, **rest))

    monkeypatch.setattr("trainer.evaluation.comparison.run.ask", refused)
    code, said = trainer("evaluate", "--benchmarks", benchmark(tmp_path / "sets"), "--out", tmp_path / "out")
    assert code == expected
    assert ("start it again" in said) == (code == 3)


@pytest.mark.parametrize(
    "bug",
    [
        pytest.param(lambda: np.zeros(2) + np.zeros(3), id="numpy shapes"),
        pytest.param(lambda: HealthResponse.model_validate({"status": "ready", "surprise": 1}), id="unknown field"),
        pytest.param(lambda: Path("nowhere").read_text(), id="missing file"),
        pytest.param(lambda: os.stat("/dev/stdin/nothing"), id="file system"),
        pytest.param(lambda: from_text("data:", Limits(1, 1)), id="a picture that nobody refused"),
    ],
)
def test_a_bug_keeps_its_traceback(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: Callable[[], object]
) -> None:
    monkeypatch.setattr("trainer.evaluation.comparison.run.ask", lambda *_, **__: bug())
    with pytest.raises((ValueError, OSError, of_service.InvalidImage)) as raised:  # Python shows it and exits with 1
        trainer("evaluate", "--benchmarks", benchmark(tmp_path / "sets"), "--out", tmp_path / "out")
    assert not isinstance(raised.value, TrainerError)


def test_python_exits_with_1_and_a_traceback_after_a_bug() -> None:
    bug = "import numpy; from trainer.cli import in_sentences; in_sentences(lambda: numpy.zeros(2) + numpy.zeros(3))"
    ended = subprocess.run([sys.executable, "-c", bug], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr and "could not be broadcast" in ended.stderr


@pytest.fixture
def ended_by(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Exception], tuple[int, str]]:
    """The exit code and the last words of a command in which an exception is raised."""

    def ended(error: Exception) -> tuple[int, str]:
        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("trainer.evaluation.comparison.run.ask", fail)
        return trainer("evaluate", "--benchmarks", benchmark(tmp_path / "sets"), "--out", tmp_path / "out")

    return ended


@pytest.mark.parametrize("kind", [*subclasses(TrainerError)], ids=lambda kind: kind.__name__)
def test_every_error_of_the_tree_ends_in_a_sentence_with_its_exit_code(
    ended_by: Callable[[Exception], tuple[int, str]], kind: type[TrainerError]
) -> None:
    assert ended_by(kind("It went wrong.")) == (kind.exit_code, "evoquality-trainer: It went wrong.")


@pytest.mark.parametrize("address", ["localhost:8000", "http://service.example:8000"])
def test_an_address_or_a_proxy_that_cannot_be_used_is_a_sentence(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks4://user:secret@proxy.example")
    asked = ("--benchmarks", benchmark(tmp_path / "sets"), "--out", tmp_path / "out", "--service", address)
    code, said = trainer("evaluate", *asked)
    assert code == 2
    assert "Give one like http://localhost:8000" in said or "'socks4://proxy.example'" in said
    assert "secret" not in said and "Traceback" not in said


@pytest.mark.parametrize("kind", [of_service.UserError, of_service.UnknownVersion, of_service.ReadOnlyStore])
def test_what_the_services_own_modules_refuse_is_a_sentence_too(
    ended_by: Callable[[Exception], tuple[int, str]], kind: type[Exception]
) -> None:
    assert ended_by(kind("the pointer cannot be read")) == (2, "evoquality-trainer: the pointer cannot be read")


def test_a_code_of_the_tree_means_one_thing() -> None:
    for kind in subclasses(TrainerError):
        (row,) = [row for row in exit_codes() if row.code == kind.exit_code]
        assert (row.meaning, row.restart) == (kind.meaning, kind.restart)


def test_the_readmes_table_has_a_row_for_every_exit_code() -> None:
    table = (ROOT / "trainer/README.md").read_text().partition("<!-- exit-codes -->\n")[2].partition("<!-- /")[0]
    codes = [int(row.split("|")[1]) for row in table.splitlines()[2:]]
    assert codes == [0, *(row.code for row in exit_codes())]


def test_a_run_folder_that_is_a_file_is_named(trainer: Trainer, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    code, said = trainer("evolve", "--pool", tmp_path, "--run", tmp_path / "run", "--store", tmp_path)
    assert code == 2
    assert f"--run {tmp_path / 'run'} cannot be used (File exists)" in said


def test_a_report_of_a_folder_that_is_no_run_says_what_is_missing_and_what_to_name(
    trainer: Trainer, tmp_path: Path
) -> None:
    code, said = trainer("report", "--run", tmp_path)
    assert code == 2
    assert f"{tmp_path} is not the folder of a run: it has no settings.json" in said
    assert "evolve --run" in said
