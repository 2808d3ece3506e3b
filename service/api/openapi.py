"""The OpenAPI documents: every status of every route, with problems as application/problem+json."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from evoquality.contract import Problem
from service.api.problems import HTTP_CODES
from service.errors import ProblemError

PROBLEM_JSON = "application/problem+json"


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a router: its problems, beside those that every route has."""
    return {status: {"model": Problem, "description": _description(status)} for status in statuses}


def document_problems(app: FastAPI) -> None:
    """Declares problems as `application/problem+json` in the application's document."""

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            for answer in _problem_answers(schema):
                answer["content"] = {PROBLEM_JSON: answer["content"]["application/json"]}
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def all_errors() -> list[type[ProblemError]]:
    """Every failure a caller can meet, by status and code."""
    return sorted([ProblemError, *ProblemError.__subclasses__()], key=lambda error: (error.status, error.code))


def _description(status: int) -> str:
    codes = [error.code for error in all_errors() if error.status == status]
    if status in HTTP_CODES:
        codes.append(HTTP_CODES[status])
    return ", ".join(f"`{code}`" for code in codes)


def _problem_answers(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    reference = {"$ref": "#/components/schemas/Problem"}
    for path in schema["paths"].values():
        for operation in path.values():
            for answer in operation["responses"].values():
                if answer.get("content", {}).get("application/json", {}).get("schema") == reference:
                    yield answer


EVERYWHERE = problems(400, 413, 500)
