"""Nothing that strangers send makes the service fail, tells of its inside, or stays in its memory."""

from __future__ import annotations

import contextlib
import gc
import itertools
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.hostile import Attack, attacks, leak
from tests.service.conftest import KEY, World, picture

ATTACKS = attacks()
CONFORMANCE = [content_type_conformance, response_schema_conformance, status_code_conformance]
QUICK = settings(
    max_examples=15,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
"""The same requests every time."""


async def attack(client: httpx.AsyncClient, one: Attack) -> httpx.Response:
    return await client.post(one.path, content=one.body, headers={"content-type": one.content_type.encode()})


def assert_harmless(response: httpx.Response, of: object) -> None:
    assert response.status_code < 500, of
    assert response.headers["content-type"].startswith(("application/json", "application/problem+json")), of
    assert leak(response.json()) is None, of


def resident_mib() -> float:
    """The memory this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def test_there_are_five_hundred_different_attacks():
    assert len(set(ATTACKS)) >= 500


def test_no_attack_is_an_accident_tells_anything_or_kills(world: World, run):
    async def story() -> None:
        async with world.public() as client:
            for one in ATTACKS:
                assert_harmless(await attack(client, one), (*one[:2], one.body[:200]))
            assert (await client.post("/v1/score", files={"image": picture()})).status_code == 200
            assert (await client.get("/health/ready")).status_code == 200

    run(story())


@pytest.mark.own_pace
def test_attacks_leave_nothing_in_the_memory(make_world, run):
    world = make_world(cache_entries=0)

    async def story() -> list[float]:
        after = []
        async with world.public() as client:
            for _ in range(4):
                for one in ATTACKS[::2]:
                    await attack(client, one)
                world.engine.asked.clear()
                gc.collect()
                after.append(resident_mib())
        return after

    warm, *_, last = run(story())
    assert last - warm < 16, "it grows with every round"


@pytest.mark.parametrize("port", ["public", "operators"])
def test_nothing_that_the_documentation_allows_or_forbids_is_an_accident(world: World, port: str):
    """Schemathesis: requests made of the OpenAPI document, right ones and wrong ones."""
    app = world.public_app if port == "public" else world.operator_app
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    headers = {} if port == "public" else {"Authorization": f"Bearer {KEY}"}
    operations = [result.ok() for result in schema.get_all_operations()]
    assert operations
    for operation, mode in itertools.product(operations, GenerationMode):
        _try(operation, mode, headers)


def _try(operation: schemathesis.APIOperation, mode: GenerationMode, headers: dict[str, str]) -> None:
    @QUICK
    @given(operation.as_strategy(generation_mode=mode))
    def answers_as_documented(case: schemathesis.Case) -> None:
        response = case.call(headers=headers)
        assert response.status_code < 500
        assert leak(response.json() if response.content else {}) is None
        case.validate_response(response, checks=CONFORMANCE)

    with contextlib.suppress(Unsatisfiable):  # a route without parameters has no wrong ones
        answers_as_documented()
