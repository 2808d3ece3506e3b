"""Settings, the operators' key, and starts that must not happen."""

from __future__ import annotations

import ast
import inspect
import json
import socket
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from service import extras
from service.cli import app as cli
from service.configuration import settings as module
from service.configuration.settings import Settings, operator_key
from service.errors import UserError
from service.versions.first import first_version, within_positions
from service.versions.store import VersionStore
from tests.service.conftest import checkpoint


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVOQUALITY_PORT", "9000")
    monkeypatch.setenv("EVOQUALITY_STORE", "/somewhere")
    assert (Settings().port, Settings().store) == (9000, Path("/somewhere"))


LINKS = {
    "EVOQUALITY_SERVICE_HOST": "10.0.0.7",
    "EVOQUALITY_SERVICE_PORT": "8000",
    "EVOQUALITY_SERVICE_PORT_HTTP": "8000",
    "EVOQUALITY_PORT": "tcp://10.0.0.7:8000",
    "EVOQUALITY_PORT_8000_TCP": "tcp://10.0.0.7:8000",
    "EVOQUALITY_PORT_8000_TCP_PROTO": "tcp",
    "EVOQUALITY_PORT_8000_TCP_PORT": "8000",
    "EVOQUALITY_PORT_8000_TCP_ADDR": "10.0.0.7",
    "EVOQUALITY_OPERATOR_PORT": "udp://10.0.0.7:8001",
}


def test_what_kubernetes_tells_of_a_service_of_this_name_is_no_setting(monkeypatch: pytest.MonkeyPatch):
    for name, value in LINKS.items():
        monkeypatch.setenv(name, value)
    assert (Settings().port, Settings().operator_port) == (8000, 8001)
    monkeypatch.setenv("EVOQUALITY_PORT", "9000")
    assert Settings().port == 9000
    monkeypatch.setenv("EVOQUALITY_PROT", "9000")
    with pytest.raises(UserError, match="did you mean EVOQUALITY_PORT"):
        Settings()


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70_000},
        {"profile": "nobody's"},
        {"dtype": "int8"},
        {"canary_min_readable": 1.5},
        {"drain_seconds": 0},
        {"min_pixels": 200, "max_pixels": 100},
        {"unknown": 1},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]):
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_every_setting_is_documented_below_itself():
    (body,) = (node.body for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.ClassDef))
    for field, below in pairwise(body):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(below, ast.Expr), f"{ast.unparse(field.target)} has no docstring"


def test_the_operators_key_is_made_once_and_for_its_owner_only(tmp_path: Path):
    file = tmp_path / "store" / "operator.key"
    key = operator_key(file)
    assert len(key) >= 32
    assert file.stat().st_mode & 0o777 == 0o600
    assert operator_key(file) == key


def test_an_empty_key_file_stops_the_start(tmp_path: Path):
    (tmp_path / "key").write_text("\n")
    with pytest.raises(UserError, match="empty"):
        operator_key(tmp_path / "key")


def test_a_new_store_begins_with_the_checkpoint_and_an_old_one_with_its_active_version(tmp_path: Path):
    store = VersionStore(tmp_path / "store")
    with pytest.raises(UserError, match="no active version"):
        first_version(store, Settings(store=store.root))
    begun = first_version(store, Settings(store=store.root, checkpoint=str(checkpoint(tmp_path / "a", 1))))
    other = Settings(store=store.root, checkpoint=str(checkpoint(tmp_path / "b", 2)))
    assert first_version(store, other) == begun == store.info(store.active().version)


def test_a_version_that_was_tampered_with_is_not_served_after_a_restart(tmp_path: Path):
    store = VersionStore(tmp_path / "store")
    settings = Settings(store=store.root, checkpoint=str(checkpoint(tmp_path / "a", 1)))
    begun = first_version(store, settings)
    (store.path(begun.id) / "config.json").write_text("{}")
    with pytest.raises(UserError, match="hash_mismatch"):
        first_version(store, settings)


def serve(*options: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["serve", *options])
    return done.exit_code, " ".join(done.stderr.split())


def test_a_start_that_cannot_be_says_why_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = str(tmp_path / "store")
    assert serve("--store", store, "--port", "99999")[0] == 2
    assert "port" in serve("--store", store, "--port", "99999")[1]
    assert "no active version" in serve("--store", store)[1]
    assert not Path(store).exists()
    assert "no checkpoint directory" in serve("--store", store, "--checkpoint", str(tmp_path / "nowhere"))[1]
    (tmp_path / "file").write_text("")
    assert serve("--store", str(tmp_path / "file"))[0] == 2


def test_a_taken_port_is_told_before_the_engine_starts(tmp_path: Path):
    source = str(checkpoint(tmp_path / "a", 1))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, sentence = serve("--store", str(tmp_path / "store"), "--checkpoint", source, "--port", port)
    assert (code, "in use" in sentence) == (2, True)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's build for GPUs is installed."""
    monkeypatch.setattr(extras, "distribution", lambda name: name)


def test_an_engine_on_a_gpu_has_defaults_of_its_own(gpu: None):
    settings = Settings()
    assert (settings.dtype, settings.max_model_len) == ("bfloat16", 4096)
    assert (settings.max_num_seqs, settings.enforce_eager) == (256, False)
    assert Settings(dtype="float32", max_num_seqs=3).max_num_seqs == 3


def test_an_engine_on_a_cpu_keeps_its_defaults():
    settings = Settings()
    assert (settings.dtype, settings.max_model_len) == ("float32", 512)
    assert (settings.max_num_seqs, settings.enforce_eager) == (64, True)


@pytest.mark.parametrize(
    ("config", "given", "length"),
    [
        ({"text_config": {"max_position_embeddings": 1024}}, {}, 1024),
        ({"max_position_embeddings": 128_000}, {}, 4096),
        ({}, {}, 4096),
        ({"max_position_embeddings": 1024}, {"max_model_len": 2048}, 2048),
    ],
    ids=["few positions", "many positions", "unknown", "given"],
)
def test_a_default_context_has_no_more_tokens_than_the_checkpoint_has_positions(
    gpu: None, tmp_path: Path, config: dict[str, object], given: dict[str, int], length: int
):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert within_positions(Settings(**given), tmp_path).max_model_len == length
