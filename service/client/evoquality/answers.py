"""Reads what came back: the service's answer, its problem, or what something between said instead.

Imports neither torch, vLLM nor transformers.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from evoquality.contract import Problem
from evoquality.retries import ServiceError, retry_after

T = TypeVar("T")

__version__ = version("evoquality-service")
VERSION_HEADER = "X-EvoQuality-Version"
"""In every answer: the version of the service's software."""
_SHOWN = 80


def read(kind: type[T], content: str | bytes, response: httpx.Response, proxied: str) -> T:
    """An answer, or a line of one. Fields that a newer service added are ignored. Raises ServiceError."""
    try:
        return TypeAdapter(kind).validate_json(content or b"null")
    except ValidationError as error:
        wrong = error.errors()[0]
    if wrong["type"] == "json_invalid":
        raise ServiceError(_problem(response, "http_error", _foreign(content, response, proxied)))
    field = ".".join(map(str, wrong["loc"])) or "the whole"
    request, its = response.request, response.headers.get(VERSION_HEADER, "another")
    why = (
        f"This client cannot read the answer to {request.method} {request.url.path}: {field} is not what it expects "
        f"({wrong['msg']}). The client has version {__version__}, the service {its}: install the same on both sides."
    )
    raise ServiceError(_problem(response, "unreadable_answer", why))


def refusal(response: httpx.Response, proxied: str) -> ServiceError:
    """The service's problem, or one made of what something between answered."""
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        problem = _problem(response, "http_error", _foreign(response.content, response, proxied))
    return ServiceError(problem, retry_after(response.headers.get("Retry-After")))


def _foreign(content: str | bytes, response: httpx.Response, proxied: str) -> str:
    """Describes an answer that is not the service's: status, address, and how it begins."""
    text = content.decode(errors="replace") if isinstance(content, bytes) else content
    begin = "".join(letter if letter.isprintable() else " " for letter in text[: 10 * _SHOWN])
    begin = " ".join(begin.split())[:_SHOWN]
    status = f"{response.status_code} {response.reason_phrase}".strip()
    where = f"{response.url.copy_with(userinfo=b'')}{proxied}"
    to = f" It points to {response.headers['Location']}." if response.has_redirect_location else ""
    return f"The answer is not the service's own: {status} from {where}{f', “{begin}”' if begin else ''}.{to}"


def _problem(response: httpx.Response, code: str, detail: str) -> Problem:
    return Problem(
        title=response.reason_phrase,
        status=response.status_code,
        detail=detail,
        instance=response.url.path,
        code=code,
        request_id=response.headers.get("X-Request-Id", ""),
    )
