"""A caller of `make replicas` takes a refusal for a failure, and reads every version that an answer names."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest

from evoquality import calls
from evoquality.contract import ImageSize, ScoreBatchItem, ScoreBatchResponse, ScoreResponse
from tests.benchmarks.replicas import fleet
from tests.benchmarks.replicas.figures import Change, Unloadable, of_change, of_traffic, of_unloadable
from tests.benchmarks.replicas.fleet import CONFIGURATION, Replica, installed
from tests.benchmarks.replicas.traffic import Answer, ask, read_answers
from tests.benchmarks.replicas.watch import Blackout, Event, blackouts, overlapping
from tests.service.conftest import picture

IMAGES = (Path("a.png"), Path("b.png"))
SIZE = ImageSize(width=28, height=28, seen_width=28, seen_height=28)
OLD = {"a": 2.0, "b": 3.0}
NEW = {"a": 2.1, "b": 3.1}


def score(version: str, value: float | None = 3.0) -> ScoreResponse:
    return ScoreResponse(
        score=value,
        std=0.1,
        entropy=1.0,
        mode="expected",
        samples=None,
        unreadable=0,
        distribution=None,
        answers=None,
        image=SIZE,
        model="m",
        version=version,
    )


def batch(*scores: ScoreResponse) -> str:
    items = [ScoreBatchItem(index=index, result=result, problem=None) for index, result in enumerate(scores)]
    return ScoreBatchResponse(results=items, model="m", version="v1").model_dump_json()


def asked(status: int, body: str) -> tuple[Answer, int]:
    """A caller's reading of an answer, and how often it asked for it."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(status, text=body, headers={"X-Replica": "replica-2", "Retry-After": "0"})

    async def once() -> Answer:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://balancer") as client:
            return await ask(client, calls.score_batch([picture(1), picture(2)]), IMAGES)

    return asyncio.run(once()), len(requests)


def test_a_batch_has_a_value_an_image_and_names_its_version() -> None:
    found, _ = asked(200, batch(score("v1", 3.0), score("v1", 4.0)))
    assert (found.versions, found.values, found.error) == (["v1"], {"a": 3.0, "b": 4.0}, None)
    assert found.replica == "replica-2"
    assert found.received >= found.sent


def test_every_version_that_a_batch_names_is_read() -> None:
    assert asked(200, batch(score("v1"), score("v2")))[0].versions == ["v1", "v2"]


@pytest.mark.parametrize(
    ("status", "body"),
    [(503, "swapping"), (200, "{}"), (200, batch(score("v1"), score("v1", None))), (200, batch(score("v1")))],
    ids=["refused", "no answer", "no value", "an image without an answer"],
)
def test_anything_else_is_a_failure_and_is_not_asked_again(status: int, body: str) -> None:
    found, times = asked(status, body)
    assert found.error
    assert times == 1


def test_answers_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = Answer(sent=1, received=2, replica="replica-1", versions=["v1"], values={"a": 3.0})
    (tmp_path / "answers.jsonl").write_text(written.line())
    assert list(read_answers(tmp_path / "answers.jsonl")) == [written]
    assert json.loads(written.line())["error"] is None


def answer(versions: list[str], values: dict[str, float], at: float = 0, replica: str = "replica-1") -> Answer:
    return Answer(sent=at, received=at + 0.5, replica=replica, versions=versions, values=values)


USUAL = [answer(["v1"], OLD)] * 3 + [answer(["v2"], NEW)] * 3


def test_answers_that_are_their_versions_are_not_mixed() -> None:
    found = of_traffic(USUAL)
    assert (found["requests"], found["failed"], found["mixed"], found["distinguishable"]) == (6, 0, 0, 1.0)
    assert found["by_replica"] == {"replica-1": {"v1": 3, "v2": 3}}
    assert found["largest_ms"] == pytest.approx(500)


@pytest.mark.parametrize(
    "wrong",
    [
        answer(["v2"], OLD),
        answer(["v1"], {"a": 2.0, "b": 3.1}),
        answer(["v1", "v2"], OLD),
    ],
    ids=["another version's content", "a batch of two contents", "a batch that names two"],
)
def test_an_answer_of_two_versions_is_counted(wrong: Answer) -> None:
    assert of_traffic([*USUAL, wrong])["mixed"] == 1


def test_versions_that_answer_alike_are_not_distinguishable() -> None:
    assert of_traffic([answer(["v1"], OLD), answer(["v2"], OLD)])["distinguishable"] == 0


def test_a_refusal_is_a_failure() -> None:
    found = of_traffic([*USUAL, Answer(sent=0, received=1, error="503: swapping")])
    assert (found["failed"], found["failures"]) == (1, ["503: swapping"])


def test_a_change_is_timed_from_the_pointers_move_to_each_replicas_new_version() -> None:
    change = Change("promotion", "v2", moved=100, ended=110)
    events = [
        Event(90, "replica-1", "version", "v1"),
        Event(101, "replica-1", "version", "v2"),
        Event(104, "replica-2", "version", "v2"),
    ]
    swaps = [Blackout("replica-1", "v2", 100.2, 101), Blackout("replica-2", "v2", 100.9, 104)]
    late = answer(["v1"], OLD, at=105)
    found = of_change(change, events, swaps, [answer(["v2"], NEW, at=101.5), late])
    assert found["seconds"] == {"replica-1": 1, "replica-2": 4}
    assert (found["first_seconds"], found["last_seconds"]) == (1, 4)
    assert found["first_answer_seconds"] == {"replica-1": 2}
    assert found["overlapping_blackouts"] == 1
    assert found["old_answers_after_all_serve"] == 1


def test_a_version_that_cannot_be_loaded_is_borne_as_long_as_the_kept_one_answers() -> None:
    what = Unloadable("v3", "v2", refused=True, moved=100, returned=110, ended=120)
    names = ("replica-1", "replica-2")
    events = [Event(102 + n, name, "state", "not_following") for n, name in enumerate(names)]
    events += [Event(111, name, "state", "ready") for name in names]
    answers = [answer(["v2"], NEW, at=101), answer(["v2"], NEW, at=105), answer(["v1"], OLD, at=115)]
    found = of_unloadable(what, events, [*answers, Answer(sent=106, received=107, error="503: none left")])
    assert found["not_ready_seconds"] == {"replica-1": 2, "replica-2": 3}
    assert found["ready_again_seconds"] == {"replica-1": 1, "replica-2": 1}
    assert (found["requests"], found["requests_with_no_replica_ready"]) == (4, 2)
    assert (found["failed"], found["by_another_version"]) == (1, 1)


def test_gates_that_close_one_after_the_other_do_not_overlap() -> None:
    gates = [Blackout("replica-1", "v", 0, 1), Blackout("replica-2", "v", 1, 2), Blackout("replica-3", "v", 3, 4)]
    assert overlapping(gates) == 0
    assert overlapping([*gates, Blackout("replica-4", "v", 0.5, 3.5)]) == 3


def test_blackouts_are_read_from_a_replicas_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "a line of something else\n"
        '{"message": "serving version v1", "timestamp": "2026-01-01T00:00:00+00:00"}\n'
        '{"message": "swapped to v2; new requests waited for 250 ms", "timestamp": "2026-01-01T00:00:10+00:00"}\n'
    )
    (found,) = blackouts([Replica("replica-1", "", "", log)])
    assert (found.replica, found.version, found.seconds) == ("replica-1", "v2", 0.25)


@pytest.mark.skipif(installed() is None, reason="HAProxy is not installed: apt-get install haproxy")
def test_haproxy_takes_its_configuration_which_names_every_replica() -> None:
    addresses = {f"REPLICA_{number}": f"127.0.0.1:{number}" for number in range(1, 1 + len(fleet.NAMES))}
    environment = {**os.environ, "LISTEN": "127.0.0.1:4", "STATS_SOCKET": "/tmp/s", **addresses}
    subprocess.run([installed() or "", "-c", "-q", "-f", str(CONFIGURATION)], env=environment, check=True)
    text = CONFIGURATION.read_text()
    assert all(text.count(f"server {name} ") == 2 for name in fleet.NAMES)


@pytest.mark.skipif(not fleet.read_only(Path("/tmp")), reason="this user may not mount")
def test_replicas_cannot_write_the_store_and_others_can(tmp_path: Path) -> None:
    within = fleet.read_only(tmp_path)
    refused = subprocess.run([*within, "touch", str(tmp_path / "x")], capture_output=True, text=True, check=False)
    assert "Read-only file system" in refused.stderr
    (tmp_path / "y").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["y"]
