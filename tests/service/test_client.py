"""The Python client and the command line against a real HTTP server."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from service.cli import app as cli
from service.client import AsyncClient, Client, ServiceError, encode_image
from service.contract import CompareOptions, RolloutPrompt, RolloutRequest, ScoreOptions
from tests.service.conftest import KEY, Listening, adapter, picture

NOBODY = "http://127.0.0.1:9"


def test_everything_can_be_called(listening: Listening, tmp_path: Path):
    world = listening.world
    file = tmp_path / "a.png"
    file.write_bytes(picture(200))
    with Client(listening.url) as client, Client(listening.operator_url, KEY) as operators:
        assert client.wait_ready(5).version == world.first
        assert client.score(file, ScoreOptions(samples=2)).samples == 2
        assert client.compare(picture(10), file, CompareOptions(samples=2)).preferred == "second"
        assert client.versions().active == world.first
        adapter(world.store.root / "adapters" / "one")
        assert operators.load_adapter("one").id == 1
        prompt = RolloutPrompt(task="score", images=["a"], samples=2)
        batch = RolloutRequest(images={"a": encode_image(file)}, prompts=[prompt], adapter="one")
        assert operators.rollouts(batch).adapter == "one"
        assert operators.unload_adapter("one") is None
        assert operators.promote(world.second).version == world.second
        assert operators.rollback().version == world.first


def test_the_asynchronous_client_gets_the_same(listening: Listening, run):
    async def story() -> tuple[object, object]:
        async with AsyncClient(listening.url) as client:
            await client.wait_ready(5)
            return await client.score(picture(200)), await client.versions()

    with Client(listening.url) as client:
        assert run(story()) == (client.score(picture(200)), client.versions())


def test_a_problem_is_raised_with_its_code(listening: Listening):
    with Client(listening.url) as client, pytest.raises(ServiceError) as refusal:
        client.score(b"no image")
    assert (refusal.value.problem.status, refusal.value.problem.code) == (422, "invalid_image")
    with Client(listening.operator_url) as stranger, pytest.raises(ServiceError) as refusal:
        stranger.rollback()
    assert refusal.value.problem.status == 401


def answering(*responses: httpx.Response | Exception) -> tuple[Client, list[httpx.Request]]:
    """A client whose service gives these answers, one after the other."""
    left, seen = list(responses), []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    client = Client("http://test")
    client._http = httpx.Client(base_url="http://test", transport=httpx.MockTransport(handle))
    return client, seen


VERSIONS = httpx.Response(200, json={"active": "v0", "previous": None, "versions": []})


def test_a_busy_service_is_asked_again_when_it_says():
    client, seen = answering(httpx.Response(503, headers={"Retry-After": "0"}), VERSIONS)
    assert client.versions().active == "v0"
    assert len(seen) == 2


def test_a_lost_connection_is_tried_again_only_where_that_is_safe():
    client, seen = answering(httpx.ReadError("lost"), VERSIONS)
    assert client.versions().active == "v0"
    client, seen = answering(httpx.ReadError("lost"), VERSIONS)
    with pytest.raises(httpx.ReadError):
        client.load_adapter("one")
    assert len(seen) == 1


def test_refusals_are_final_and_foreign_answers_are_still_problems():
    client, seen = answering(httpx.Response(502, text="<html>bad gateway</html>"))
    with pytest.raises(ServiceError) as refusal:
        client.versions()
    assert (refusal.value.problem.status, refusal.value.problem.code, len(seen)) == (502, "http_error", 1)


def test_the_command_line_scores_files_and_tells_which_it_could_not(listening: Listening, tmp_path: Path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(picture(255))
    bad.write_bytes(b"no image")
    done = CliRunner().invoke(cli, ["score", str(good), str(bad), "--json", "--url", listening.url])
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.exit_code == 1
    assert lines[0]["score"] == 5.0
    assert "no complete image" in lines[1]["error"]
    table = CliRunner().invoke(cli, ["score", str(good), "--url", listening.url])
    assert (table.exit_code, "5.00" in table.stdout) == (0, True)


def test_the_command_line_compares_and_lists(listening: Listening, tmp_path: Path):
    dark, bright = tmp_path / "dark.png", tmp_path / "bright.png"
    dark.write_bytes(picture(10))
    bright.write_bytes(picture(240))
    compared = CliRunner().invoke(cli, ["compare", str(dark), str(bright), "--url", listening.url, "--json"])
    assert json.loads(compared.stdout)["preferred"] == "second"
    listed = CliRunner().invoke(cli, ["versions", "--url", listening.url])
    assert listening.world.first in listed.stdout and "active" in listed.stdout


def test_the_command_line_says_in_one_sentence_that_nobody_answers():
    done = CliRunner().invoke(cli, ["versions", "--url", NOBODY])
    assert done.exit_code == 2
    assert "cannot be reached" in done.stderr
