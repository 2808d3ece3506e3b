"""`evoquality serve`: flags before the environment before the file; a mistake is reported in one sentence."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from service import server
from service.cli import app as cli
from service.configuration.settings import SECTIONS, Settings
from service.configuration.sources import OTHERS, flag, variable
from service.errors import UserError, VersionError
from service.versions.store import VersionStore
from tests.service.conftest import checkpoint


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that a start came to; nothing is started."""
    found: list[Settings] = []
    monkeypatch.setattr(server, "run", lambda settings: found.append(settings) or 0)
    return found


def serve(*options: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["serve", *options], env={"COLUMNS": "200"})
    assert "Traceback" not in done.output
    return done.exit_code, " ".join(done.stderr.split())


def file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return str(path)


def test_flags_go_before_the_environment_before_the_file(
    chosen: list[Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = file(tmp_path, 'port = 1\nhost = "in-file"\nmodel_name = "in-file"\nenforce_eager = false\n')
    monkeypatch.setenv("EVOQUALITY_PORT", "2")
    monkeypatch.setenv("EVOQUALITY_MODEL_NAME", "in-environment")
    assert serve("--config", config, "--port", "3") == (0, "")
    [settings] = chosen
    assert (settings.port, settings.model_name, settings.host) == (3, "in-environment", "in-file")
    assert (settings.enforce_eager, settings.operator_port) == (False, 8001)


def test_the_environment_may_name_the_file(chosen: list[Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVOQUALITY_CONFIG", file(tmp_path, "port = 1\n"))
    serve()
    assert chosen[0].port == 1


def test_an_empty_variable_is_as_good_as_none(chosen: list[Settings], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVOQUALITY_CHECKPOINT", "")
    serve()
    assert chosen[0].checkpoint is None


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_a_flag_with_its_help(name: str):
    page = CliRunner().invoke(cli, ["serve", "--help"], env={"COLUMNS": "300", "TERM": "dumb"}).output
    described = Settings.model_fields[name].description or ""
    words = re.sub(r"\W+", " ", page)
    assert flag(name) in page
    assert re.sub(r"\W+", " ", described).strip() in words


def test_help_is_divided_into_sections():
    page = CliRunner().invoke(cli, ["serve", "--help"]).output
    for title in SECTIONS.values():
        assert title in page


def test_text_becomes_what_the_setting_wants(chosen: list[Settings], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVOQUALITY_MAX_LORA_RANK", "32")
    serve("--no-enforce-eager", "--drain-seconds", "2.5")
    assert (chosen[0].max_lora_rank, chosen[0].enforce_eager, chosen[0].drain_seconds) == (32, False, 2.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "99999"], ["--port", "EVOQUALITY_PORT", "99999", "65535"]),
        (["--profile", "evo"], ["profile", "'plain', 'evoquality' or 'visualquality-r1'"]),
        (["--max-lora-rank", "many"], ["max_lora_rank", "'many'"]),
        (["--min-pixels", "9", "--max-pixels", "8"], ["min_pixels is larger than max_pixels"]),
        (["--otlp-endpoint", "collector"], ["otlp_endpoint", "https?"]),
        (["--prot", "1"], ["--prot", "--port"]),
        (["--config", "/nowhere/settings.toml"], ["/nowhere/settings.toml"]),
    ],
)
def test_a_wrong_flag_is_told_with_its_reason(chosen: list[Settings], options: list[str], words: list[str]):
    code, sentence = serve(*options)
    assert (code, chosen) == (2, [])
    for word in words:
        assert word in sentence


def test_a_misspelt_variable_names_the_right_one(chosen: list[Settings], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVOQUALITY_MAX_INFLIGHT", "3")
    code, sentence = serve()
    assert (code, chosen) == (2, [])
    assert "EVOQUALITY_MAX_INFLIGHT" in sentence and "did you mean EVOQUALITY_MAX_IN_FLIGHT?" in sentence


def test_variables_of_the_clients_and_the_trainer_are_left_alone(
    chosen: list[Settings], monkeypatch: pytest.MonkeyPatch
):
    for name in (*OTHERS, "EVOQUALITY_TRAINER_DEVICE"):
        monkeypatch.setenv(name, "x")
    assert serve() == (0, "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 1", ["prot", "did you mean port?"]),
        ("config = 'other.toml'", ["there is no setting config"]),
        ("port = 'many'", ["port", "'many'"]),
        ("port = = 1", ["not valid TOML", "line 1"]),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(chosen: list[Settings], tmp_path: Path, text: str, words: list[str]):
    code, sentence = serve("--config", file(tmp_path, text))
    assert (code, chosen) == (2, [])
    for word in words:
        assert word in sentence


@pytest.mark.parametrize(
    "failure", [ValueError("a bug"), OSError("a bug"), KeyError("a bug"), VersionError("bad", "x")]
)
def test_a_bug_shows_its_traceback_and_ends_with_1(monkeypatch: pytest.MonkeyPatch, failure: Exception):
    def run(_: Settings) -> int:
        raise failure

    monkeypatch.setattr(server, "run", run)
    done = CliRunner().invoke(cli, ["serve"])
    assert (done.exit_code, done.exception) == (1, failure)
    assert "Cannot start" not in done.output


def test_what_a_person_must_correct_ends_with_2_and_a_sentence(monkeypatch: pytest.MonkeyPatch):
    def run(_: Settings) -> int:
        raise UserError("the store is empty")

    monkeypatch.setattr(server, "run", run)
    assert serve() == (2, "Cannot start: the store is empty")


def test_a_taken_port_is_reported_before_the_engine_starts(tmp_path: Path):
    store = VersionStore(tmp_path / "store")
    store.activate(store.add(checkpoint(tmp_path / "a", 1), parent=None, profile="plain", origin="test").id)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, sentence = serve("--store", str(tmp_path / "store"), "--port", port)
    assert code == 2 and f"cannot listen on 127.0.0.1, port {port}" in sentence


def test_every_variable_of_the_other_commands_is_known():
    assert set(_variables(get_command(cli))) - set(map(variable, Settings.model_fields)) == OTHERS


def test_no_variable_is_two_things():
    names = [variable(name) for name in Settings.model_fields]
    assert not OTHERS & set(names)
    assert not [name for name in names if name.startswith("EVOQUALITY_TRAINER_")]


def _variables(command: Any) -> Iterator[str]:
    """The variables that a command and those below it read."""
    for parameter in command.params:
        if parameter.envvar:
            yield parameter.envvar
    for below in getattr(command, "commands", {}).values():
        yield from _variables(below)
