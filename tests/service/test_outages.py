"""A service that goes away while it is asked: what waits, what is asked again, what is kept, and what is said."""

from __future__ import annotations

import csv
import itertools
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from evoquality import AsyncClient, Client, ServiceError
from evoquality.contract import MAX_BATCH, ScoreBatchItem
from tests.service.conftest import Listening, picture, served
from tests.service.gateway import Gateway, away, gateway
from tests.service.test_cli import evoquality, rows_of


@pytest.fixture
def between(listening: Listening) -> Iterator[Gateway]:
    with gateway(listening.url) as standing:
        yield standing


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between attempts are short."""
    monkeypatch.setattr("evoquality.retries._wait", lambda state: 0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(40):
        (photos / f"{number:02}.png").write_bytes(picture(6 * number))
    return photos


def leaves_after(between: Gateway, good: int, bad: int, status: int = 502) -> None:
    """The gateway passes `good` requests on, then says for `bad` ones that the service is away."""
    count = itertools.count()
    between.instead = lambda path: away(status)(path) if good <= next(count) < good + bad else None


@pytest.mark.parametrize("status", [502, 503, 504])
def test_what_a_gateway_says_during_a_restart_costs_no_picture(
    status: int, between: Gateway, folder: Path, tmp_path: Path, quick
):
    leaves_after(between, good=10, bad=40, status=status)
    done = evoquality("score", folder, "--out", tmp_path / "scores.csv", "--patience", 60, url=between.url)
    assert (done.exit_code, len(rows_of(tmp_path / "scores.csv"))) == (0, 40), done.stderr


def test_a_service_that_is_killed_and_started_again_costs_no_picture(make_world, folder: Path, tmp_path: Path, quick):
    world = make_world()
    done: dict[str, Any] = {}
    with served(world) as first:
        port = int(first.url.rpartition(":")[2])
        operators = int(first.operator_url.rpartition(":")[2])
        world.engine.seconds = 0.05
        command = ("score", folder, "--out", tmp_path / "scores.csv", "--patience", 60)
        scoring = threading.Thread(target=lambda: done.update(result=evoquality(*command, url=first.url)))
        scoring.start()
        while len(world.engine.asked) < 5:
            time.sleep(0.005)
    with socket.create_server(("127.0.0.1", port)):
        pass  # nobody listens: the connection is refused for a while
    del world.__dict__["public_app"], world.__dict__["operator_app"]
    with served(world, (port, operators)):
        scoring.join()
    assert (done["result"].exit_code, len(rows_of(tmp_path / "scores.csv"))) == (0, 40), done["result"].stderr


def test_an_outage_that_lasts_ends_the_run_and_says_how_to_go_on(between: Gateway, folder: Path, tmp_path: Path, quick):
    out = tmp_path / "scores.csv"
    leaves_after(between, good=10, bad=10**9)
    ended = evoquality("score", folder, "--out", out, "--jobs", 1, "--patience", 0.2, url=between.url)
    assert ended.exit_code == 2
    said = " ".join(ended.stderr.split())
    assert "502" in said and between.url in said
    assert f"kept in {out}.journal. Start the same command again to go on." in said
    kept = len((tmp_path / "scores.csv.journal").read_text().splitlines())
    with gateway(between.upstream) as again:
        assert evoquality("score", folder, "--out", out, url=again.url).exit_code == 0
        assert again.asked.count("/v1/score") == 40 - kept < 40
    assert len(rows_of(out)) == 40


def test_a_service_that_never_answered_is_not_waited_for(between: Gateway, folder: Path, quick):
    between.instead = away()
    assert evoquality("score", folder, "--patience", 10**6, "--jobs", 1, url=between.url).exit_code == 2
    assert evoquality("info", url=between.url).exit_code == 2


def test_control_c_says_that_the_scores_are_kept_even_while_the_service_hangs(
    listening: Listening, folder: Path, tmp_path: Path
):
    out = tmp_path / "scores.csv"
    journal = tmp_path / "scores.csv.journal"
    listening.world.engine.seconds = 0.05
    command = [sys.executable, "-m", "service.cli", "score", str(folder), "--out", str(out), "--url", listening.url]
    process = subprocess.Popen([*command, "--jobs", "2"], stderr=subprocess.PIPE, text=True)
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None
        time.sleep(0.005)
    listening.world.engine.seconds = 30
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=25)
    assert process.returncode == 130
    assert f"kept in {journal}. Start the same command again" in " ".join(said.split())
    listening.world.engine.seconds = 0


def test_a_batch_asks_again_for_what_was_lost(between: Gateway, listening: Listening, quick, run):
    images = [picture(10), picture(200), b"no image", picture(90)]
    lost = itertools.count()

    def lose(path: str, body: bytes) -> bytes:
        """Of the first answers the second item is lost."""
        if next(lost) > 1 or not body.startswith(b'{"results"'):
            return body
        answer = json.loads(body)
        problem = {**answer["results"][2]["problem"], "status": 503, "code": "engine_failure"}
        answer["results"][1] = {"index": 1, "result": None, "problem": problem}
        return json.dumps(answer).encode()

    between.change = lose

    async def story() -> object:
        async with AsyncClient(between.url) as client:
            return await client.score_batch(images)

    with Client(between.url) as client, Client(listening.url) as straight:
        whole = straight.score_batch(images)
        for ask in (lambda: client.score_batch(images), lambda: run(story())):
            answer = ask()
            assert [item.result for item in answer.results] == [item.result for item in whole.results]
            assert [item.index for item in answer.results] == [0, 1, 2, 3]
            assert answer.results[2].problem.code == "invalid_image"
            lost = itertools.count()


def test_a_stream_that_is_cut_off_is_asked_again_for_the_rest(between: Gateway, quick, run):
    images = [picture(10 + number) for number in range(6)]
    cut = itertools.count()
    between.change = lambda path, body: b"".join(body.splitlines(keepends=True)[:2]) if next(cut) < 2 else body

    async def story() -> list[ScoreBatchItem]:
        async with AsyncClient(between.url) as client:
            return [item async for item in client.score_stream(images)]

    with Client(between.url) as client:
        for ask in (lambda: list(client.score_stream(images)), lambda: run(story())):
            items = ask()
            assert sorted(item.index for item in items) == list(range(6))
            by_score = sorted(items, key=lambda item: item.result.score)
            assert [item.index for item in by_score] == list(range(6))
            cut = itertools.count()
    assert between.asked == ["/v1/score/batch"] * 6


def test_what_stays_lost_has_its_problem(between: Gateway, quick):
    problem: dict[str, object] = dict.fromkeys(("title", "instance", "request_id"), "")
    problem |= {"status": 504, "code": "deadline_exceeded", "detail": "late"}
    item = {"index": 0, "result": None, "problem": problem}
    body = json.dumps({"results": [item], "model": "m", "version": "v"}).encode()
    between.instead = lambda path: (200, {}, body)
    with Client(between.url) as client:
        (found,) = client.score_batch([picture()]).results
        assert found.problem.code == "deadline_exceeded"
    between.instead = lambda path: (200, {}, json.dumps(item).encode() + b"\n")
    with Client(between.url) as client:
        assert [found.problem.code for found in client.score_stream([picture()])] == ["deadline_exceeded"]
    assert len(between.asked) == 10


def test_no_answer_mixes_two_versions(listening: Listening, between: Gateway):
    """The weights are swapped between two requests for one batch."""
    world, asked = listening.world, itertools.count()

    def swap(path: str) -> None:
        if next(asked) == 1:
            with listening.operators as operators:
                operators.post(f"/internal/versions/{world.second}/promote").raise_for_status()

    between.instead = swap
    with Client(between.url) as client:
        answer = client.score_batch([picture(1)] * (MAX_BATCH + 1))
    assert {item.result.version for item in answer.results} == {answer.version} == {world.second}
    assert len(answer.results) == MAX_BATCH + 1


def test_a_service_that_hangs_does_not_keep_information_waiting(monkeypatch):
    monkeypatch.setattr("evoquality.calls._LOOK_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        for command in (("info", "--timeout", 0.2), ("versions", "list", "--timeout", 0.2)):
            told = evoquality(*command, url=url)
            assert (told.exit_code, "did not answer in time" in told.stderr) == (2, True)
        with Client(url, timeout_s=0.2) as client, pytest.raises(httpx.ReadTimeout):
            client.score(picture())


def test_the_service_is_given_fifteen_seconds_for_what_asks_nothing_of_the_model():
    with Client("http://127.0.0.1:1") as client, Client("http://127.0.0.1:1", timeout_s=2) as hasty:
        from evoquality import calls

        for call in (calls.info(), calls.versions(), calls.ready()):
            assert client._request(call)["timeout"].read == 15
            assert hasty._request(call)["timeout"].read == 2
        assert client._request(calls.score(picture()))["timeout"].read == 300


@pytest.mark.parametrize("status", [200, 301, 404, 502])
def test_an_answer_that_is_not_the_services_own_is_named(status: int, between: Gateway, quick):
    headers = {"Location": "https://elsewhere.example/"} if status == 301 else {}
    between.instead = lambda path: (status, headers, b"<html>\n\n<h1>\x1b[31mSign   in\x00</h1>" + b"." * 10_000)
    with Client(between.url) as client, pytest.raises(ServiceError) as refused:
        client.versions()
    said = refused.value.problem.detail
    assert f"{status} " in said and f"{between.url}/v1/versions" in said and "<html> <h1> [31mSign in" in said
    assert ("elsewhere.example" in said) == (status == 301)
    assert len(said) < 300 and said.isprintable()
    told = evoquality("info", url=between.url)
    assert (told.exit_code, str(status) in told.stderr) == (2, True)


def test_rows_of_other_folders_stay_and_a_picture_has_one_row(
    listening: Listening, folder: Path, tmp_path, monkeypatch
):
    out, other = tmp_path / "scores.csv", tmp_path / "other"
    other.mkdir()
    (other / "a.jpg").write_bytes(picture(33, kind="JPEG"))
    (other / "broken.png").write_bytes(b"no image")
    assert evoquality("score", other, "--out", out, url=listening.url).exit_code == 1
    assert evoquality("score", folder, "--out", out, url=listening.url).exit_code == 0
    assert {Path(row["image"]).parent.name for row in rows_of(out)} == {"other", "photos"}
    assert len(rows_of(out)) == 42
    assert sum(bool(row["error"]) for row in rows_of(out)) == 1
    listening.world.engine.asked.clear()
    monkeypatch.chdir(tmp_path)
    for paths in (["photos"], [tmp_path / "other" / ".." / "photos", "photos"], ["./photos", folder]):
        assert evoquality("score", *paths, "--out", out, url=listening.url).exit_code == 0
        assert len(rows_of(out)) == 42
    assert evoquality("score", "photos", "--pattern", "0*.png", "--out", out, url=listening.url).exit_code == 0
    assert len(rows_of(out)) == 42
    assert listening.world.engine.asked == []
    (folder / "00.png").unlink()
    (other / "a.jpg").unlink()
    assert evoquality("score", "photos", "--out", out, url=listening.url).exit_code == 0
    assert len(rows_of(out)) == 41


def test_a_journal_of_another_version_of_the_program_is_read(listening: Listening, folder: Path, tmp_path: Path):
    out, journal = tmp_path / "scores.csv", tmp_path / "scores.csv.journal"
    assert evoquality("score", folder, "--out", out, url=listening.url).exit_code == 0
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    for entry in entries:
        entry["new"] = entry["result"]["new"] = entry["result"]["image"]["new"] = 1
        entry["options"]["new"] = None
        del entry["path"]
    entries[0]["options"]["new"] = "asked for something that this version does not know"
    journal.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    listening.world.engine.asked.clear()
    with out.open() as before:
        old = list(csv.DictReader(before))
    with gateway(listening.url) as counted:
        assert evoquality("score", folder, "--out", out, url=counted.url).exit_code == 0
        assert counted.asked.count("/v1/score") == 1
    assert rows_of(out) == old
