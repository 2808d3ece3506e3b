"""Requests that are given up: past their deadline, or nobody waits for them any more."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.responses import StreamingResponse

from tests.service.conftest import KEY, World, picture
from tests.service.test_http import assert_problem

IMAGE = picture(128)
TEXT = base64.b64encode(IMAGE).decode()
LONG = 30.0
SHORT = 2.0
"""A deadline that passes soon, but in which a busy machine decodes a picture."""
"""Enough to reach the engine on a busy machine."""
SAMPLED = {"mode": "sampled", "samples": "2"}


async def score(world: World, **headers: str) -> httpx.Response:
    async with world.public() as client:
        return await client.post("/v1/score", files={"image": IMAGE}, headers=headers)


async def working(world: World) -> None:
    """Waits until the engine works."""
    while not world.engine.running:
        await asyncio.sleep(0.001)


def rejected(world: World, run, reason: str) -> float:
    async def story() -> str:
        async with world.operators(key=None) as client:
            return (await client.get("/metrics")).text

    name = f'iqa_rejected_total{{reason="{reason}"}} '
    return sum(float(line.removeprefix(name)) for line in run(story()).splitlines() if line.startswith(name))


class Visitor:
    """A client of an ASGI application that sends a request and may hang up."""

    def __init__(self, app: Any, path: str, body: bytes, **headers: str) -> None:
        self.messages: list[dict[str, Any]] = []
        self._parts = [{"type": "http.request", "body": body, "more_body": False}]
        self._hung_up = asyncio.Event()
        head = {"content-type": "application/json", **headers}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(name.encode(), value.encode()) for name, value in head.items()],
            "client": ("127.0.0.1", 1),
            "server": ("test", 80),
        }
        self.answer = asyncio.create_task(app(scope, self._receive, self._send))

    def hang_up(self) -> None:
        self._hung_up.set()

    async def _receive(self) -> dict[str, Any]:
        if self._parts:
            return self._parts.pop()
        await self._hung_up.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.messages.append(message)


def test_past_the_services_deadline_the_engine_is_left_alone(make_world, run):
    world = make_world(request_seconds=SHORT)
    world.engine.seconds = LONG
    before = rejected(world, run, "deadline_exceeded")
    assert_problem(run(score(world)), 504, "deadline_exceeded")
    assert (len(world.engine.asked), world.engine.running) == (1, 0)
    assert rejected(world, run, "deadline_exceeded") == before + 1


def test_a_caller_can_only_shorten_the_deadline(make_world, run):
    world = make_world(request_seconds=SHORT)
    world.engine.seconds = LONG
    for asked in ("20", "999999"):
        assert_problem(run(score(world, **{"X-Request-Timeout-Ms": asked})), 504, "deadline_exceeded")
    world.engine.seconds = 0
    assert run(score(world, **{"X-Request-Timeout-Ms": "5000"})).status_code == 200


@pytest.mark.parametrize("asked", ["0", "-1", "1.5", "soon", "", "1" * 20, "١"])
def test_a_deadline_that_is_no_number_is_told(world: World, run, asked: str):
    response = run(score(world, **{"X-Request-Timeout-Ms": asked.encode()}))
    assert_problem(response, 422, "invalid_request")
    assert world.engine.asked == []


def test_a_swap_lock_closed_longer_than_the_deadline_asks_to_come_back(make_world, run):
    world = make_world(request_seconds=SHORT)

    async def story() -> httpx.Response:
        async with world.service.swap_lock.exclusive(1):
            return await score(world)

    response = run(story())
    assert_problem(response, 503, "swapping")
    assert int(response.headers["retry-after"]) > 0
    assert world.engine.asked == []
    assert run(score(world)).status_code == 200


def test_who_is_inside_while_the_swap_lock_is_closed_was_too_slow(make_world, run):
    world = make_world(request_seconds=SHORT)
    world.engine.seconds = 4 * SHORT  # also of the swap's canaries

    async def story() -> tuple[httpx.Response, httpx.Response]:
        inside = asyncio.create_task(score(world))
        await working(world)
        closing = asyncio.create_task(world.service.swapper.promote(world.second))
        while world.service.swap_lock.is_open:
            await asyncio.sleep(0.001)
        answers = await asyncio.gather(inside, score(world))
        closing.cancel()
        return answers

    inside, outside = run(story())
    assert_problem(inside, 504, "deadline_exceeded")
    assert_problem(outside, 503, "swapping")


def test_both_orders_of_a_comparison_are_given_up(make_world, run):
    world = make_world(request_seconds=SHORT)
    world.engine.seconds = LONG

    async def story() -> httpx.Response:
        async with world.public() as client:
            return await client.post("/v1/compare", json={"first": TEXT, "second": TEXT})

    assert_problem(run(story()), 504, "deadline_exceeded")
    assert (len(world.engine.asked), world.engine.running) == (2, 0)


def test_a_client_that_hangs_up_frees_the_engine_at_once(world: World, run):
    world.engine.seconds = LONG
    before = rejected(world, run, "client_gone")

    async def story() -> list[dict[str, Any]]:
        visitor = Visitor(world.public_app, "/v1/score", json.dumps({"image": TEXT}).encode())
        await working(world)
        visitor.hang_up()
        await visitor.answer
        return visitor.messages

    assert run(story())[0]["status"] == 499
    assert (len(world.engine.asked), world.engine.running) == (1, 0)
    assert rejected(world, run, "client_gone") == before + 1


def test_a_client_that_hangs_up_amid_its_body_is_no_accident(world: World, run, caplog):
    async def story() -> None:
        visitor = Visitor(world.public_app, "/v1/score", b"{")
        visitor._parts[0]["more_body"] = True
        await asyncio.sleep(0.01)
        visitor.hang_up()
        await visitor.answer

    run(story())
    assert "ERROR" not in caplog.text


def test_a_place_is_free_again_once_its_request_is_given_up(make_world, run):
    world = make_world(request_seconds=0.05, max_in_flight=1)
    world.engine.seconds = LONG
    for _ in range(3):
        assert_problem(run(score(world)), 504, "deadline_exceeded")


def test_rollouts_end_with_their_client_and_have_no_deadline(make_world, run):
    world = make_world(request_seconds=0.01)
    prompts = [{"task": "score", "images": ["a"], "samples": 2}] * 3
    body = json.dumps({"images": {"a": TEXT}, "prompts": prompts}).encode()

    async def story() -> None:
        app = world.operator_app
        world.engine.seconds = 0.05
        patient = Visitor(app, "/internal/rollouts", body, authorization=f"Bearer {KEY}")
        await patient.answer
        assert patient.messages[0]["status"] == 200
        world.engine.seconds = LONG
        visitor = Visitor(app, "/internal/rollouts", body, authorization=f"Bearer {KEY}")
        await working(world)
        visitor.hang_up()
        await visitor.answer

    run(story())
    assert world.engine.running == 0


def test_a_stream_goes_on_to_its_end_and_ends_with_its_client(world: World, run):
    def body(*brightness: int) -> bytes:
        return json.dumps({"images": [base64.b64encode(picture(b)).decode() for b in brightness]}).encode()

    async def story() -> tuple[Visitor, Visitor]:
        app = world.public_app
        whole = Visitor(app, "/v1/score/batch", body(1, 2, 3), accept="application/x-ndjson")
        await whole.answer
        world.engine.seconds = LONG
        left = Visitor(app, "/v1/score/batch", body(4, 5, 6), accept="application/x-ndjson")
        await working(world)
        left.hang_up()
        await left.answer
        return whole, left

    whole, left = run(story())
    assert b"".join(part.get("body", b"") for part in whole.messages).count(b"\n") == 3
    assert whole.messages[-1]["more_body"] is False
    assert all(part.get("more_body", True) for part in left.messages)
    assert world.engine.running == 0


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_past_the_deadline_a_batch_has_what_is_ready_and_says_so_of_the_rest(make_world, run, accept: str):
    world = make_world(request_seconds=2 * SHORT)
    plain = world.engine.generate

    async def generate(prompt, sampling, **options):
        if prompt.images[0].getpixel((0, 0))[0] == 200:
            await asyncio.sleep(LONG)
        return await plain(prompt, sampling, **options)

    world.engine.generate = generate

    async def story() -> httpx.Response:
        async with world.public() as client:
            form = [("images", picture(level)) for level in (200, 10, 20)]
            return await client.post("/v1/score/batch", files=form, headers={"accept": accept})

    response = run(story())
    assert response.status_code == 200
    items = [json.loads(line) for line in response.text.splitlines()]
    items = items[0]["results"] if accept == "application/json" else items
    assert {item["index"]: (item["problem"] or {}).get("code") for item in items} == {
        0: "deadline_exceeded", 1: None, 2: None,
    }  # fmt: skip
    assert world.engine.running == 0


def test_a_batch_ends_with_a_client_that_goes_before_the_first_line(world: World, run, monkeypatch):
    async def gone(response: Any, scope: Any, receive: Any, send: Any) -> None:
        raise OSError("the client is gone")

    monkeypatch.setattr(StreamingResponse, "__call__", gone)
    world.engine.seconds = LONG
    body = json.dumps({"images": [TEXT]}).encode()

    async def story() -> None:
        visitor = Visitor(world.public_app, "/v1/score/batch", body, accept="application/x-ndjson")
        with contextlib.suppress(OSError):
            await visitor.answer
        await asyncio.sleep(0)
        assert world.engine.running == 0

    run(story())


def test_a_body_that_does_not_come_is_not_waited_for(make_world, run):
    world = make_world(body_seconds=0.05)

    async def drops(first: bytes) -> AsyncIterator[bytes]:
        yield first
        for _ in range(1000):
            yield b" "
            await asyncio.sleep(0.01)

    async def story() -> list[httpx.Response]:
        async with world.public() as client:
            begun = {
                "application/json": b"{",
                "multipart/form-data; boundary=b": b'--b\r\nContent-Disposition: form-data; name="seed"\r\n\r\n',
            }
            return [
                await client.post("/v1/score", content=drops(first), headers={"content-type": kind})
                for kind, first in begun.items()
            ]

    for response in run(story()):
        assert_problem(response, 408, "body_timeout")
    assert world.engine.asked == []
