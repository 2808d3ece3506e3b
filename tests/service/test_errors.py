"""Error bodies are a promise: callers tell errors apart by code and status, and show the title."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, HTTPException

from service.api.observe import ObserveMiddleware
from service.api.problems import add_problem_handlers
from service.errors import ProblemError, RateLimited, VersionError

FROZEN = Path(__file__).with_name("errors.json")
HTTP_STATUSES = (400, 404, 405, 413, 415)


def failures() -> list[Exception]:
    """One of every kind."""
    special = {VersionError: VersionError("reason", "A detail."), RateLimited: RateLimited("A detail.", 7)}
    own = [special.get(kind) or kind("A detail.") for kind in ProblemError.__subclasses__()]
    return [*own, *map(HTTPException, HTTP_STATUSES), RuntimeError("secret")]


async def answers() -> list[dict[str, object]]:
    """A caller's answer to each: the body, and the headers that go with it."""
    app = FastAPI()
    add_problem_handlers(app)
    app.add_middleware(ObserveMiddleware)
    kinds = failures()

    @app.get("/{index}")
    async def fail(index: int) -> None:
        raise kinds[index]

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://t", headers={"X-Request-Id": "id"}) as client:
        got = [await client.get(f"/{index}") for index in range(len(kinds))]
    named = ("content-type", "retry-after", "www-authenticate")
    return [
        {
            "headers": {name: response.headers[name] for name in named if name in response.headers},
            "body": {**response.json(), "instance": "/"},
        }
        for response in got
    ]


def test_error_bodies_are_as_they_were(run):
    """A new kind of error is added to errors.json; the others never change."""
    assert {answer["body"]["code"]: answer for answer in run(answers())} == json.loads(FROZEN.read_text())


def test_no_two_errors_share_a_code(run):
    codes = [answer["body"]["code"] for answer in run(answers())]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("word", ["secret", "RuntimeError"])
def test_an_accident_is_not_described(word: str):
    assert word not in FROZEN.read_text()
