"""Holds every answer that a test gets against the OpenAPI document of the application that gave it."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
from fastapi import FastAPI

import service

COMMITTED = [json.loads(file.read_text()) for file in Path(service.__file__).parent.glob("openapi*.json")]
"""Another test holds them against the code: made anew for every client, they would take most of the tests' time."""
PATHS = {document["info"]["title"]: document["paths"] for document in COMMITTED}


def only_declared(app: FastAPI) -> Callable[[httpx.Response], Awaitable[None]]:
    """A hook for httpx: fails the test if an operation answers with a status or a kind of body it does not declare."""
    paths = PATHS[app.title]

    async def check(response: httpx.Response) -> None:
        operation = _operation(paths, response.request)
        if operation is not None:
            declared = operation["responses"]
            where = f"{response.request.method} {response.request.url.path} {response.status_code}"
            assert str(response.status_code) in declared, f"{where} is not in the OpenAPI document"
            kinds = declared[str(response.status_code)].get("content", {})
            kind = response.headers.get("content-type", "").partition(";")[0]
            assert kind in kinds or not kinds, f"{where} is {kind}, declared are {list(kinds)}"

    return check


def _operation(paths: dict, request: httpx.Request) -> dict | None:
    for template, operations in paths.items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), request.url.path):
            return operations.get(request.method.lower())
    return None
