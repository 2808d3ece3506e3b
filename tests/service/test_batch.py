"""Many images in one request: one version, every image its own answer or problem."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping

import httpx
import pytest

from evoquality.contract import ScoreBatchItem
from service.engine.protocol import Prompt
from service.images.shares import Queue, preparing
from tests.service.conftest import LARGE_SIDE, Listening, World, decodes, picture
from tests.service.fake_engine import plain_answer
from tests.service.test_http import assert_problem

LEVELS = (10, 120, 250)
FILES = [picture(level) for level in LEVELS]
NDJSON = {"Accept": "application/x-ndjson"}


def ask(world: World, run, files: list[bytes], **request) -> httpx.Response:
    async def story() -> httpx.Response:
        async with world.public() as client:
            form = [("images", data) for data in files]
            return await client.post("/v1/score/batch", files=form, **request)

    return run(story())


def test_a_batch_gives_the_answers_that_its_images_get_alone(world: World, run):
    async def alone(data: bytes) -> dict[str, object]:
        async with world.public() as client:
            return (await client.post("/v1/score", files={"image": data})).json()

    body = ask(world, run, FILES).json()
    assert [item["index"] for item in body["results"]] == [0, 1, 2]
    assert [item["result"] for item in body["results"]] == [run(alone(data)) for data in FILES]
    assert body["version"] == world.first


def test_a_form_and_json_get_the_same(world: World, run):
    async def as_json() -> httpx.Response:
        async with world.public() as client:
            texts = [base64.b64encode(data).decode() for data in FILES]
            return await client.post("/v1/score/batch", json={"images": texts, "seed": 4})

    assert run(as_json()).json() == ask(world, run, FILES, data={"seed": "4"}).json()


def test_a_broken_image_fails_alone(world: World, run):
    response = ask(world, run, [FILES[0], b"no image", FILES[2]])
    good, bad, last = response.json()["results"]
    assert response.status_code == 200
    assert good["result"]["score"] < last["result"]["score"]
    assert good["problem"] is None and bad["result"] is None
    assert (bad["problem"]["status"], bad["problem"]["code"]) == (422, "invalid_image")
    assert bad["problem"]["request_id"] == response.headers["x-request-id"]


def test_an_accident_of_one_image_is_its_own_and_keeps_its_reason(world: World, run):
    plain = world.engine.answer

    def accident(prompt, sampling, index) -> str:
        if prompt.images[0].getpixel((0, 0))[0] == LEVELS[1]:
            raise RuntimeError("/secret/path")
        return plain(prompt, sampling, index)

    world.engine.answer = accident
    response = ask(world, run, FILES)
    assert [bool(item["result"]) for item in response.json()["results"]] == [True, False, True]
    assert response.json()["results"][1]["problem"]["code"] == "internal_error"
    assert "secret" not in response.text


@pytest.mark.parametrize("count", [0, 65])
def test_a_batch_has_1_to_64_images(world: World, run, count: int):
    async def as_json() -> httpx.Response:
        async with world.public() as client:
            text = base64.b64encode(FILES[0]).decode()
            return await client.post("/v1/score/batch", json={"images": [text] * count})

    responses = [run(as_json())]
    if count:
        responses.append(ask(world, run, [FILES[0]] * count))
    for response in responses:
        assert_problem(response, 422, "invalid_request")
        assert "images" in response.json()["detail"]
    assert world.engine.asked == []


def test_wrong_options_are_a_problem_of_the_request_not_of_its_images(world: World, run):
    for headers in ({}, NDJSON):
        response = ask(world, run, FILES, data={"mode": "expected", "seed": "1"}, headers=headers)
        assert_problem(response, 422, "invalid_request")


def test_all_pictures_of_a_request_wait_for_the_engine_in_its_one_place(world: World, run):
    """So that other requests go before the rest of a batch."""
    places: list[Queue | None] = []
    world.engine.answer = lambda *asked: places.append(preparing.get()) or plain_answer(*asked)
    for number, files in enumerate((FILES, FILES[:1])):
        assert ask(world, run, files, data={"samples": "1", "seed": str(number)}).status_code == 200
    batch, other = set(places[:3]), set(places[3:])
    assert len(batch) == len(other) == 1 and None not in batch | other
    assert batch != other


def test_a_batch_may_be_larger_than_a_single_image(make_world, run):
    world = make_world(max_upload_bytes=1000, max_batch_bytes=3000)
    assert ask(world, run, FILES * 2).status_code == 200
    assert_problem(ask(world, run, [b"x" * 4000]), 413, "body_too_large")


def test_a_batch_is_answered_by_one_version(world: World, run):
    """A promotion that arrives in the middle waits."""

    async def story() -> tuple[set[str], str]:
        world.engine.seconds = 0.05
        async with world.public() as client:
            form = [("images", data) for data in FILES]
            asked = asyncio.create_task(client.post("/v1/score/batch", files=form))
            while not world.engine.running:
                await asyncio.sleep(0.001)
            await world.service.swapper.promote(world.second)
            body = (await asked).json()
            return {item["result"]["version"] for item in body["results"]}, body["version"]

    assert run(story()) == ({world.first}, world.first)


def test_pictures_that_wait_for_memory_do_not_keep_a_swap_waiting(make_world, run):
    """There is memory for one of three. The others wait for it before they share the swap lock."""
    world = make_world(decoded_mib=10, drain_seconds=5)
    large = [picture(level, side=LARGE_SIDE) for level in LEVELS]
    behind = decodes(world, lambda: world.service.swap_lock._readers)

    async def story() -> list[int]:
        world.engine.seconds = 0.02
        async with world.public() as client:
            batches = [asyncio.create_task(client.post("/v1/score/batch", files=[("images", data)])) for data in large]
            while not world.engine.running:
                await asyncio.sleep(0.001)
            await world.service.swapper.promote(world.second)
            return [answer.status_code for answer in await asyncio.gather(*batches)]

    assert run(story()) == [200, 200, 200]
    assert behind == [0, 0, 0], "decoded before the session"


def test_pictures_are_scaled_for_the_model_before_a_swap_has_to_wait(world: World, run, monkeypatch):
    sharing: list[int] = []

    async def prepare(prompt: Prompt) -> None:
        sharing.append(world.service.swap_lock._readers)

    monkeypatch.setattr(world.engine, "prepare", prepare)
    for _ in range(2):  # known scores need nothing
        assert ask(world, run, FILES).status_code == 200
    assert sharing == [0, 0, 0]


def test_no_picture_is_scaled_while_a_swap_runs(world: World, run, monkeypatch):
    """Its canaries would wait for it."""
    scaled, lock = [], world.service.swap_lock

    async def prepare(prompt: Prompt) -> None:
        scaled.append(lock.is_open)

    async def story() -> int:
        async with world.public() as client:
            async with lock.exclusive(5):
                form = [("images", data) for data in FILES]
                asked = asyncio.create_task(client.post("/v1/score/batch", files=form))
                while not lock._waiting:
                    await asyncio.sleep(0.001)
            return (await asked).status_code

    monkeypatch.setattr(world.engine, "prepare", prepare)
    assert run(story()) == 200
    assert scaled == [True, True, True]


def test_known_pictures_are_not_decoded_again(world: World, run):
    decoded, large = decodes(world), [picture(level, side=LARGE_SIDE) for level in LEVELS]
    assert ask(world, run, large).json() == ask(world, run, large).json()
    assert len(decoded) == len(large)


def test_lines_come_as_answers_are_ready(listening: Listening):
    """The first answer arrives while the engine still works on the last."""
    engine, plain, late = listening.world.engine, listening.world.engine.generate, threading.Event()

    async def generate(prompt, sampling, **options):
        if prompt.images[0].getpixel((0, 0))[0] == LEVELS[0]:
            await asyncio.to_thread(late.wait, 10)
        return await plain(prompt, sampling, **options)

    engine.generate = generate
    form = [("images", data) for data in FILES]
    with httpx.stream("POST", f"{listening.url}/v1/score/batch", files=form, headers=NDJSON) as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        items = []
        for line in response.iter_lines():
            items.append(ScoreBatchItem.model_validate_json(line))
            if len(items) == 2:
                late.set()
    assert [item.index for item in items][-1] == 0
    assert {item.index for item in items} == {0, 1, 2}


def raw_request(url: str, files: list[bytes], fields: Mapping[str, str] | None = None) -> socket.socket:
    """A streamed batch, sent; nothing of the answer is read."""
    form = [("images", data) for data in files]
    request = httpx.Request("POST", f"{url}/v1/score/batch", files=form, data=fields, headers=NDJSON)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    connection = socket.create_connection((request.url.host, request.url.port))
    connection.sendall(f"POST /v1/score/batch HTTP/1.1\r\n{head}\r\n".encode() + request.read())
    return connection


def test_a_reader_who_does_not_read_does_not_hold_the_gate(listening: Listening):
    world = listening.world
    world.engine.answer = lambda *_: "x" * 200_000  # more than the buffers on the way take
    fields = {"samples": "1", "reasoning": "true"}
    with raw_request(listening.url, FILES * 20, fields), listening.operators as operators:
        wait_for(lambda: len(world.engine.asked) == len(FILES * 20))
        world.engine.answer = plain_answer
        assert operators.post(f"/internal/versions/{world.second}/promote").status_code == 200


def test_a_reader_who_goes_away_ends_the_work(listening: Listening):
    engine = listening.world.engine
    engine.seconds = 60
    connection = raw_request(listening.url, FILES)
    wait_for(lambda: engine.running == len(FILES))
    connection.close()
    wait_for(lambda: engine.running == 0)


def test_the_documentation_says_that_images_repeat(world: World, run):
    async def story() -> httpx.Response:
        async with world.public() as client:
            return await client.get("/openapi.json")

    route = json.loads(run(story()).text)["paths"]["/v1/score/batch"]["post"]
    form = route["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["images"]["items"]["format"] == "binary"
    assert form["properties"]["images"]["maxItems"] == 64
    assert route["responses"]["200"]["content"].keys() == {"application/json", "application/x-ndjson"}


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
