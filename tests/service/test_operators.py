"""The operators' routes: the key first, then promotion, rollback, adapters and rollouts."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable

import httpx
import pytest

from tests.service.conftest import KEY, World, adapter, picture
from tests.service.test_http import assert_problem

ROUTES = [
    ("POST", "/internal/versions/v0123456789ab/promote"),
    ("POST", "/internal/rollback"),
    ("PUT", "/internal/versions/v0123456789ab/benchmarks"),
    ("PUT", "/internal/weights"),
    ("POST", "/internal/rollouts"),
    ("POST", "/internal/exact-votes"),
    ("POST", "/internal/adapters"),
    ("GET", "/internal/adapters"),
    ("DELETE", "/internal/adapters/one"),
]
BATCH = {
    "images": {"a": base64.b64encode(picture(10)).decode()},
    "prompts": [{"task": "score", "images": ["a"], "samples": 2}],
}


def ask(world: World, run, method: str, path: str, key: str | None = KEY, **request) -> httpx.Response:
    async def story() -> httpx.Response:
        async with world.operators(key) as client:
            return await client.request(method, path, **request)

    return run(story())


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("key", [None, "", "wrong", KEY + "x", "ü"])
def test_without_the_key_nothing_is_done(world: World, run, method: str, path: str, key: str | None):
    if key == "ü":
        response = ask(world, run, method, path, None, headers={b"Authorization": "Bearer ü".encode()})
    else:
        response = ask(world, run, method, path, key)
    assert_problem(response, 401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"


def test_another_scheme_is_no_key(world: World, run):
    response = ask(world, run, "POST", "/internal/rollback", None, headers={"Authorization": f"Basic {KEY}"})
    assert_problem(response, 401, "unauthorized")


def test_the_tests_know_every_operators_route(world: World, run):
    schema = ask(world, run, "GET", "/openapi.json").json()
    known = {(method, path) for method, path in ROUTES}
    listed = {
        (method.upper(), path.replace("{version}", "v0123456789ab").replace("{name}", "one"))
        for path, methods in schema["paths"].items()
        for method in methods
        if path.startswith("/internal")
    }
    assert listed == known


def test_health_and_metrics_are_open(world: World, run):
    for path in ("/health/live", "/health/ready", "/metrics"):
        assert ask(world, run, "GET", path, None).status_code == 200


def test_promotion_and_rollback(world: World, run):
    promoted = ask(world, run, "POST", f"/internal/versions/{world.second}/promote").json()
    assert (promoted["version"], promoted["previous"]) == (world.second, world.first)
    assert ask(world, run, "POST", "/internal/rollback").json()["version"] == world.first


@pytest.mark.parametrize("version", ["v0123456789ab", "latest", "..%2f..%2fetc"])
def test_unknown_versions_are_not_found(world: World, run, version: str):
    response = ask(world, run, "POST", f"/internal/versions/{version}/promote")
    assert response.status_code == 404


def test_adapters_come_answer_and_go(world: World, run):
    adapter(world.store.root / "adapters" / "one")
    assert ask(world, run, "POST", "/internal/adapters", json={"name": "one"}).json() == {"name": "one", "id": 1}
    assert ask(world, run, "GET", "/internal/adapters").json() == [{"name": "one", "id": 1}]
    answer = ask(world, run, "POST", "/internal/rollouts", json={**BATCH, "adapter": "one"}).json()
    assert (answer["adapter"], answer["version"]) == ("one", world.first)
    assert ask(world, run, "DELETE", "/internal/adapters/one").status_code == 204
    gone = ask(world, run, "POST", "/internal/rollouts", json={**BATCH, "adapter": "one"})
    assert_problem(gone, 404, "unknown_adapter")
    adapter(world.store.root / "adapters" / "one")
    again = ask(world, run, "POST", "/internal/adapters", json={"name": "one"})
    assert_problem(again, 409, "adapter_name_used")


@pytest.mark.parametrize("name", ["../versions", "a/b", "", ".x"])
def test_adapter_names_lead_nowhere_else(world: World, run, name: str):
    assert_problem(ask(world, run, "POST", "/internal/adapters", json={"name": name}), 422, "invalid_request")


def test_bad_batches_are_refused(world: World, run):
    for batch, code in [
        ({}, "invalid_request"),
        ({**BATCH, "prompts": []}, "invalid_request"),
        ({**BATCH, "images": {}}, "invalid_request"),
        ({**BATCH, "images": {"a": "###"}}, "invalid_image"),
    ]:
        assert_problem(ask(world, run, "POST", "/internal/rollouts", json=batch), 422, code)
    conflict = ask(world, run, "POST", "/internal/rollouts", json={**BATCH, "version": world.second})
    assert_problem(conflict, 409, "version_conflict")


def test_rollouts_that_fill_their_memory_leave_users_theirs(make_world: Callable[..., World], run):
    world = make_world(decoded_mib=8)
    large = base64.b64encode(picture(side=1200)).decode()
    body = {"images": {"a": large}, "prompts": [{"task": "score", "images": ["a"], "samples": 1}], "priority": 5}

    async def story() -> int:
        world.engine.held = asyncio.Event()
        async with world.operators() as trainer, world.public() as user:
            small = {**body, "images": {"a": base64.b64encode(picture(side=700)).decode()}}
            rollouts = [
                asyncio.create_task(trainer.post("/internal/rollouts", json=one)) for one in (body, small, small)
            ]
            while not world.engine.running:
                await asyncio.sleep(0)
            answer = asyncio.create_task(user.post("/v1/score", files={"image": picture(side=700)}))
            while len(world.engine.asked) < 2:  # the user's has reached the engine; the small rollouts wait
                await asyncio.sleep(0.01)
            world.engine.held.set()
            await asyncio.gather(*rollouts)
            return (await answer).status_code

    assert run(story()) == 200
    assert [asked[3] for asked in world.engine.asked[:2]] == [5, 0]
