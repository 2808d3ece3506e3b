"""The Python client against a real HTTP server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from evoquality import AsyncClient, Client, ServiceError, encode_image
from evoquality.contract import CompareOptions, Problem, RolloutPrompt, RolloutRequest, ScoreBatchItem, ScoreOptions
from tests.service.conftest import KEY, Listening, adapter, picture


def test_everything_can_be_called(listening: Listening, tmp_path: Path):
    world = listening.world
    file = tmp_path / "a.png"
    file.write_bytes(picture(200))
    with Client(listening.url) as client, Client(listening.operator_url, KEY) as operators:
        assert client.wait_ready(5).version == world.first
        assert client.score(file, ScoreOptions(samples=2)).samples == 2
        assert client.compare(picture(10), file, CompareOptions(samples=2)).preferred == "second"
        assert [place.index for place in client.rank([picture(10), file]).ranking] == [1, 0]
        assert [item.index for item in client.score_batch([file, file]).results] == [0, 1]
        assert client.info().version == client.versions().active == world.first
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


def refusal(status: int, code: str) -> httpx.Response:
    problem = Problem(title="", status=status, detail="", instance="", code=code, request_id="")
    return httpx.Response(status, text=problem.model_dump_json(), headers={"Retry-After": "0"})


SWAP = httpx.Response(200, json={"version": "v1", "previous": "v0", "blackout_ms": 1, "drain_ms": 1, "reload_ms": 0})
CALLS = {
    "promote": lambda client: client.promote("v1"),
    "rollback": lambda client: client.rollback(),
    "load_adapter": lambda client: client.load_adapter("one"),
}


@pytest.mark.parametrize(
    ("call", "status", "code"),
    [
        ("promote", 503, "drain_timeout"),
        ("rollback", 503, "drain_timeout"),
        ("rollback", 503, "swapping"),
        ("load_adapter", 503, "engine_failure"),
        ("load_adapter", 503, "http_error"),
    ],
)
def test_what_closed_the_gate_or_may_have_begun_is_not_sent_again(call: str, status: int, code: str):
    client, seen = answering(refusal(status, code), SWAP)
    with pytest.raises(ServiceError) as refused:
        CALLS[call](client)
    assert (refused.value.problem.code, len(seen)) == (code, 1)


@pytest.mark.parametrize(
    ("call", "status", "code"),
    [("promote", 503, "swapping"), ("rollback", 503, "too_busy"), ("rollback", 429, "rate_limited")],
)
def test_what_never_began_or_does_no_harm_is_sent_again(call: str, status: int, code: str):
    client, seen = answering(refusal(status, code), SWAP)
    assert CALLS[call](client).version == "v1"
    assert len(seen) == 2


def test_refusals_are_final_and_foreign_answers_are_still_problems():
    client, seen = answering(httpx.Response(404, text="<html>not here</html>"))
    with pytest.raises(ServiceError) as refusal:
        client.versions()
    assert (refusal.value.problem.status, refusal.value.problem.code, len(seen)) == (404, "http_error", 1)


def test_a_stream_gives_every_item_and_its_problems(listening: Listening, run):
    images = [picture(200), b"no image", picture(10)]

    async def story() -> list[ScoreBatchItem]:
        async with AsyncClient(listening.url) as client:
            return [item async for item in client.score_stream(images)]

    with Client(listening.url) as client:
        items = sorted(client.score_stream(images), key=lambda item: item.index)
        assert [item.result is None for item in items] == [False, True, False]
        assert items[1].problem.code == "invalid_image"
        assert items[0].result == client.score(images[0])
    without_ids = {"problem": {"request_id"}}
    streamed = sorted(run(story()), key=lambda item: item.index)
    assert [item.model_dump(exclude=without_ids) for item in streamed] == [
        item.model_dump(exclude=without_ids) for item in items
    ]


def test_a_stream_that_is_refused_raises_before_its_first_item(listening: Listening):
    with Client(listening.url) as client, pytest.raises(ServiceError) as refusal:
        next(client.score_stream([picture(10)], ScoreOptions(mode="expected", seed=1)))
    assert refusal.value.problem.code == "invalid_request"


def test_a_stream_is_begun_again_when_the_service_was_busy():
    line = ScoreBatchItem(index=0, result=None, problem=None).model_dump_json() + "\n"
    client, seen = answering(httpx.Response(503, headers={"Retry-After": "0"}), httpx.Response(200, text=line))
    assert [item.index for item in client.score_stream([b"image"])] == [0]
    assert {request.headers["accept"] for request in seen} == {"application/x-ndjson"}


def test_retry_after_may_be_a_date(monkeypatch: pytest.MonkeyPatch):
    slept: list[float] = []
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=slept.append))  # not the sleep of all threads
    soon, past = (format_datetime(datetime.now(UTC) + timedelta(seconds=s), usegmt=True) for s in (30, -30))
    for date, least, most in ((soon, 25, 30), (past, 0, 0)):
        client, _ = answering(httpx.Response(429, headers={"Retry-After": date}), VERSIONS)
        assert client.versions().active == "v0"
        assert least <= slept[-1] <= most


def test_who_is_asked_to_wait_for_long_is_told_instead():
    for header in ("3600", format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)):
        client, seen = answering(httpx.Response(429, headers={"Retry-After": header}))
        with pytest.raises(ServiceError) as refusal:
            client.versions()
        assert refusal.value.retry_after_s == pytest.approx(3600, abs=5)
        assert len(seen) == 1


def test_a_senseless_retry_after_is_ignored():
    client, seen = answering(httpx.Response(503, headers={"Retry-After": "soon"}), VERSIONS)
    assert client.versions().active == "v0"
    assert len(seen) == 2


def test_the_package_is_typed():
    assert files("service").joinpath("py.typed").is_file()
