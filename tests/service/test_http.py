"""The public routes: bodies, errors, ids, limits."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable

import httpx
import pytest

from service.engine.pixels import PixelLimits
from service.errors import ProblemError
from tests.service.conftest import World, picture

IMAGE = picture(128)
TEXT = base64.b64encode(IMAGE).decode()


def ask(world: World, run, method: str, path: str, **request) -> httpx.Response:
    async def story() -> httpx.Response:
        async with world.public() as client:
            return await client.request(method, path, **request)

    return run(story())


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body.keys() == {"type", "title", "status", "detail", "instance", "code", "request_id"}
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["request_id"] == response.headers["x-request-id"]


def test_a_form_and_json_get_the_same_score(world: World, run):
    form = ask(world, run, "POST", "/v1/score", files={"image": IMAGE}, data={"samples": "2"})
    as_json = ask(world, run, "POST", "/v1/score", json={"image": TEXT, "samples": 2})
    assert form.status_code == as_json.status_code == 200
    assert form.json() == as_json.json()
    assert form.json()["version"] == world.first


def test_a_form_and_json_get_the_same_preference(world: World, run):
    files = {"first": IMAGE, "second": picture(200)}
    form = ask(world, run, "POST", "/v1/compare", files=files)
    images = {name: base64.b64encode(data).decode() for name, data in files.items()}
    as_json = ask(world, run, "POST", "/v1/compare", json=images)
    assert form.json() == as_json.json()
    assert form.json()["preferred"] == "second"


BAD_BODIES = {
    "no body": ({}, 415, "unsupported_media_type"),
    "plain text": ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415, "unsupported_media_type"),
    "broken JSON": ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "invalid_request"),
    "JSON that is no UTF-8": (
        {"content": b'{"image": "\xff"}', "headers": {"content-type": "application/json"}}, 422, "invalid_request",
    ),
    "deep JSON": (
        {"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 422, "invalid_request",
    ),
    "a list": ({"json": [1]}, 422, "invalid_request"),
    "a number for an image": ({"json": {"image": 3}}, 422, "invalid_request"),
    "an empty image": ({"json": {"image": ""}}, 422, "invalid_request"),
    "an unknown field": ({"json": {"image": TEXT, "smaples": 3}}, 422, "invalid_request"),
    "too many samples": ({"json": {"image": TEXT, "samples": 65}}, 422, "invalid_request"),
    "no samples": ({"json": {"image": TEXT, "samples": 0}}, 422, "invalid_request"),
    "a negative seed": ({"json": {"image": TEXT, "seed": -1}}, 422, "invalid_request"),
    "no number": ({"content": f'{{"image":"{TEXT}","temperature":NaN}}'.encode(),
                   "headers": {"content-type": "application/json"}}, 422, "invalid_request"),
    "an image that is none": ({"json": {"image": "aGVsbG8="}}, 422, "invalid_image"),
    "a form without its image": ({"files": {"picture": IMAGE}}, 422, "invalid_request"),
    "text for a file": ({"files": {"x": (None, "y"), "image": (None, "text")}}, 422, "invalid_request"),
    "words for a number": ({"files": {"image": IMAGE}, "data": {"samples": "many"}}, 422, "invalid_request"),
    "two images": ({"files": [("image", IMAGE), ("image", IMAGE)]}, 400, "bad_request"),
    "too many fields": ({"files": {"image": IMAGE}, "data": {str(i): "" for i in range(9)}}, 400, "bad_request"),
    "a form without boundary": (
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "bad_request",
    ),
    "a field twice": ({"files": {"image": IMAGE}, "data": {"seed": ["1", "2"]}}, 422, "invalid_request"),
    "a field as long as a file": ({"files": {"image": IMAGE}, "data": {"mode": "x" * 5000}}, 400, "bad_request"),
    "a number of a thousand digits": (
        {"content": b'{"image": "x", "seed": ' + b"9" * 1000 + b"}", "headers": {"content-type": "application/json"}},
        422, "invalid_request",
    ),
    "an address, which is off": ({"json": {"image": "https://example.org/a.png"}}, 422, "url_refused"),
    "half a form": (
        {"content": b"--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a\"\r\n\r\nabc",
         "headers": {"content-type": "multipart/form-data; boundary=b"}}, 422, "invalid_request",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "status", "code"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_bad_bodies_are_problems_of_the_caller(world: World, run, request_, status: int, code: str):
    assert_problem(ask(world, run, "POST", "/v1/score", **request_), status, code)
    assert world.engine.asked == []


def test_an_odd_number_of_votes_is_refused(world: World, run):
    response = ask(world, run, "POST", "/v1/compare", json={"first": TEXT, "second": TEXT, "samples": 3})
    assert_problem(response, 422, "invalid_request")
    assert "samples" in response.json()["detail"]


def test_unknown_addresses_and_methods_are_problems_too(world: World, run):
    assert_problem(ask(world, run, "GET", "/nowhere"), 404, "not_found")
    assert_problem(ask(world, run, "GET", "/v1/score"), 405, "method_not_allowed")


def test_operators_routes_are_not_on_the_public_port(world: World, run):
    assert_problem(ask(world, run, "POST", f"/internal/versions/{world.second}/promote"), 404, "not_found")


def test_a_body_too_large_is_refused_whether_it_says_so_or_not(make_world, run):
    world = make_world(max_upload_bytes=1000)

    async def chunks():
        for _ in range(20):
            yield b"x" * 100

    headers = {"content-type": "application/json"}
    declared = ask(world, run, "POST", "/v1/score", content=b"x" * 2000, headers=headers)
    chunked = ask(world, run, "POST", "/v1/score", content=chunks(), headers=headers)
    for response in (declared, chunked):
        assert_problem(response, 413, "body_too_large")


def test_a_sane_request_id_is_kept_and_any_other_replaced(world: World, run):
    kept = ask(world, run, "GET", "/v1/versions", headers={"X-Request-Id": "abc-1"})
    assert kept.headers["x-request-id"] == "abc-1"
    for given in ("a b", "x" * 65, "<script>"):
        response = ask(world, run, "GET", "/v1/versions", headers={"X-Request-Id": given})
        assert response.headers["x-request-id"] != given


def test_more_requests_than_allowed_are_asked_to_come_back(make_world, run):
    world = make_world(max_in_flight=2)
    world.engine.seconds = 0.05

    async def story() -> list[httpx.Response]:
        async with world.public() as client:
            calls = (client.post("/v1/score", files={"image": IMAGE}) for _ in range(5))
            return await asyncio.gather(*calls)

    responses = run(story())
    refused = [response for response in responses if response.status_code != 200]
    assert len(refused) == 3
    for response in refused:
        assert_problem(response, 503, "too_busy")
        assert int(response.headers["retry-after"]) > 0
    assert ask(world, run, "POST", "/v1/score", files={"image": IMAGE}).status_code == 200


def test_an_accident_is_reported_without_its_reason(world: World, run):
    def accident(*_: object) -> str:
        raise RuntimeError("/secret/path")

    world.engine.answer = accident
    response = ask(world, run, "POST", "/v1/score", files={"image": IMAGE})
    assert_problem(response, 500, "internal_error")
    assert "secret" not in response.text


def test_versions_are_listed(world: World, run):
    body = ask(world, run, "GET", "/v1/versions").json()
    assert (body["active"], body["previous"]) == (world.first, None)
    assert {info["id"] for info in body["versions"]} == {world.first, world.second}


def test_health_tells_life_from_readiness(world: World, run):
    assert ask(world, run, "GET", "/health/live").json() == {"status": "live", "version": world.first}
    assert ask(world, run, "GET", "/health/ready").json() == {"status": "ready", "version": world.first}
    world.service.readiness.draining = True
    assert_problem(ask(world, run, "GET", "/health/ready"), 503, "not_ready")
    assert_problem(ask(world, run, "POST", "/v1/score", files={"image": IMAGE}), 503, "not_ready")


def test_a_dead_engine_is_told_everywhere_but_in_liveness(world: World, run):
    world.engine.is_dead = True
    assert_problem(ask(world, run, "GET", "/health/ready"), 503, "engine_dead")
    assert_problem(ask(world, run, "POST", "/v1/score", files={"image": IMAGE}), 503, "engine_dead")
    assert ask(world, run, "GET", "/health/live").status_code == 200


def test_an_engine_that_does_not_answer_is_not_ready(make_world, run):
    world = make_world(probe_seconds=0.01)

    async def never() -> str:
        await asyncio.sleep(60)
        return ""

    world.engine.probe = never
    assert_problem(ask(world, run, "GET", "/health/ready"), 503, "not_ready")


def test_one_question_to_the_engine_stands_for_all_who_probe(world: World, run):
    plain, asked = world.engine.probe, []

    async def probe() -> str:
        asked.append(1)
        await asyncio.sleep(0.01)
        return await plain()

    async def story() -> list[httpx.Response]:
        async with world.public() as client, world.operators() as operators:
            gather = await asyncio.gather(*(client.get("/health/ready") for _ in range(5)))
            return [*gather, await operators.get("/health/ready")]

    world.engine.probe = probe
    assert {response.status_code for response in run(story())} == {200}
    assert len(asked) == 1


def test_an_engine_with_other_weights_than_those_that_serve_is_not_ready(world: World, run):
    world.engine.version = "half loaded"
    assert_problem(ask(world, run, "GET", "/health/ready"), 503, "not_ready")


def test_a_swap_does_not_make_the_service_unready(world: World, run):
    async def story() -> httpx.Response:
        async with world.public() as client, world.service.swap_lock.exclusive(1):
            world.engine.version = "half loaded"
            return await client.get("/health/ready")

    assert run(story()).status_code == 200


def test_bodies_beyond_the_memory_for_them_are_asked_to_come_back(make_world, run):
    world = make_world(max_upload_bytes=2**20, max_batch_bytes=2**20, max_bodies_mib=2, cache_entries=0)
    image = picture(side=400, kind="BMP")  # 480 kB: one caller has room for two of them
    world.engine.seconds = 0.1

    async def story() -> None:
        async with world.public() as client:
            calls = (client.post("/v1/score", files={"image": image}) for _ in range(3))
            answers = await asyncio.gather(*calls)
            assert sorted(answer.status_code for answer in answers) == [200, 200, 503]
            busy = next(answer for answer in answers if answer.status_code == 503)
            assert_problem(busy, 503, "too_busy")
            assert busy.headers["retry-after"] == "1"
            assert (await client.post("/v1/score", files={"image": image})).status_code == 200

    run(story())


def test_metrics_count_by_route_and_status(world: World, run):
    ask(world, run, "POST", "/v1/score", files={"image": b"no image"})
    ask(world, run, "GET", "/a/path/that/nobody/knows")
    assert ask(world, run, "GET", "/metrics").status_code == 404  # open, so on the operators' port alone

    async def scraped() -> str:
        async with world.operators(key=None) as client:
            return (await client.get("/metrics")).text

    text = run(scraped())
    assert 'iqa_requests_total{route="/v1/score",status="422"}' in text
    assert 'iqa_requests_total{route="other",status="404"}' in text
    assert "nobody" not in text


def test_the_documentation_shows_both_kinds_of_body(world: World, run):
    schema = ask(world, run, "GET", "/openapi.json").json()
    content = schema["paths"]["/v1/score"]["post"]["requestBody"]["content"]
    assert content.keys() == {"multipart/form-data", "application/json"}
    assert content["multipart/form-data"]["schema"]["properties"]["image"]["format"] == "binary"
    assert "$defs" not in json.dumps(schema)
    assert ask(world, run, "GET", "/docs").status_code == 200


def test_every_error_has_a_status_a_code_and_a_title_of_its_own():
    errors = ProblemError.__subclasses__()
    assert len({error.code for error in errors}) == len(errors)
    for error in errors:
        assert 400 <= error.status < 600
        assert error.title != ProblemError.title
        assert (error.status in {429, 503}) == (error.retry_after_s is not None)


def test_info_tells_what_serves_and_what_it_takes(make_world: Callable[..., World], run):
    world = make_world(max_upload_bytes=1234)
    told = ask(world, run, "GET", "/v1/info").json()
    assert (told["version"], told["profile"], told["thinks"]) == (world.first, "plain", False)
    assert (told["modes"], told["max_upload_bytes"]) == (["expected", "sampled"], 1234)
    assert (told["role"], told["follows"], told["max_answer_tokens"]) == ("serve", False, None)
    assert told["parameters"] == 4 * 3 + 3
    assert "JPEG" in told["formats"]


def test_info_tells_the_models_pixel_limits_to_operators_too(make_world: Callable[..., World], run):
    async def told(world: World) -> dict[str, object]:
        async with world.operators() as client:
            return (await client.get("/v1/info")).json()

    world = make_world()
    world.engine.limits = PixelLimits(3136, 50_176, 28)
    body = run(told(world))
    assert (body["min_pixels"], body["max_pixels"]) == (3136, 50_176)


def test_pixel_limits_that_are_unknown_are_told_as_null(world: World, run):
    assert ask(world, run, "GET", "/v1/info").json()["max_pixels"] is None


def test_a_model_that_thinks_has_both_modes_and_a_longest_answer(make_world: Callable[..., World], run):
    told = ask(make_world(profile="evoquality", max_answer_tokens=500), run, "GET", "/v1/info").json()
    assert (told["thinks"], told["modes"], told["max_answer_tokens"]) == (True, ["expected", "sampled"], 500)
