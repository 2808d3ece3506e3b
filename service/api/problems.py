"""One shape for every error: RFC 9457 problem+json with a stable code and the request's id."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from itertools import islice

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from evoquality.contract import Problem
from service.api.observe import REQUEST_ID_HEADER, request_id
from service.errors import InvalidRequest, ProblemError
from service.observability import metrics

HTTP_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}
HTTP_DETAILS = {
    400: "The request's body could not be read.",
    404: "There is nothing at this address.",
    405: "This address does not take this method.",
    413: "The request's body is larger than this service accepts.",
    415: "Send multipart/form-data or application/json.",
}
_MAX_LINE, _MAX_LINES = 200, 8
_REFUSALS = {401, 408, 429, 503, 504}

log = logging.getLogger(__name__)


class BodyLimitMiddleware:
    """Starlette's body limit with larger limits for some paths.

    Answers a body that is declared too large with a problem, where Starlette would answer in plain text.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, larger: Mapping[str, int]) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._larger.get(scope.get("path", "").removeprefix(scope.get("root_path", "")), self._max_bytes)
        declared = Headers(scope=scope).get("content-length", "") if scope["type"] == "http" else ""
        if declared.isdecimal() and int(declared) > limit:
            await http_problem(Request(scope), HTTPException(413))(scope, receive, send)
            return
        await RequestBodyLimitMiddleware(self._app, limit)(scope, receive, send)


def add_problem_handlers(app: FastAPI) -> None:
    """Registers a handler for every kind of error."""
    app.add_exception_handler(ProblemError, _service_problem)
    app.add_exception_handler(RequestValidationError, _validation_problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(Exception, _internal_problem)


def describe(errors: list[ErrorDetails] | ValidationError) -> str:
    """Names each wrong field and the reason, without repeating what was sent."""
    details = errors.errors(include_url=False, include_input=False) if isinstance(errors, ValidationError) else errors
    lines = (f"{'.'.join(map(str, error['loc'])) or 'body'}: {error['msg']}" for error in details)
    return "; ".join(line[:_MAX_LINE] for line in islice(lines, _MAX_LINES))


def http_problem(request: Request, error: HTTPException) -> Response:
    """The response to an error of HTTP itself."""
    title = HTTPStatus(error.status_code).phrase
    detail = HTTP_DETAILS.get(error.status_code, title)
    code = HTTP_CODES.get(error.status_code, "http_error")
    return _response(_problem(request, error.status_code, code, title, detail), dict(error.headers or {}))


def service_problem(request: Request, error: ProblemError) -> Response:
    """The response to a failure of this service."""
    if error.status in _REFUSALS:
        metrics.rejected.labels(error.code).inc()
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _response(problem_of(request, error), headers)


async def _service_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return service_problem(request, error)


async def _validation_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return service_problem(request, InvalidRequest(describe(list(error.errors()))))


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return http_problem(request, error)


async def _internal_problem(request: Request, error: Exception) -> Response:
    return _response(problem_of(request, error), {})


def problem_of(request: Request, error: Exception) -> Problem:
    """The problem that stands for an error. Unexpected errors are logged."""
    failure = error if isinstance(error, ProblemError) else _accident(request, error)
    problem = _problem(request, failure.status, failure.code, failure.title, failure.detail)
    return problem.model_copy(update={"images": failure.images})


def _accident(request: Request, error: Exception) -> ProblemError:
    log.error("the request failed", exc_info=error)
    return ProblemError("The service failed. Its log has more under this request's id.")


def _problem(request: Request, status: int, code: str, title: str, detail: str) -> Problem:
    return Problem(
        title=title,
        status=status,
        detail=detail,
        instance=request.scope["path"],  # not the URL: the Host header is part of it
        code=code,
        request_id=request_id(request),
    )


def _response(problem: Problem, headers: dict[str, str]) -> Response:
    headers[REQUEST_ID_HEADER] = problem.request_id
    return JSONResponse(problem.model_dump(), problem.status, headers, "application/problem+json")
