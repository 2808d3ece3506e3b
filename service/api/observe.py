"""Request ids, request metrics and the access log."""

from __future__ import annotations

import logging
import re
from time import perf_counter
from uuid import uuid4

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evoquality import __version__
from evoquality.answers import VERSION_HEADER
from service.observability import logs, metrics

REQUEST_ID_HEADER = "X-Request-Id"
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

log = logging.getLogger("service.access")


class ObserveMiddleware:
    """Accepts a well-formed X-Request-Id or makes one, echoes it, and measures the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        identity = given if _SANE_ID.fullmatch(given) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = identity
        logs.request_id.set(identity)
        status = 500
        begin = perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID_HEADER], headers[VERSION_HEADER] = identity, __version__
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            _record(scope, status, perf_counter() - begin)


def request_id(request: Request) -> str:
    """The id of a request that came through the middleware."""
    return str(request.state.request_id)


def _record(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "other")  # the route's template: full paths would make unbounded labels
    metrics.requests.labels(route, status).inc()
    metrics.request_seconds.labels(route).observe(seconds)
    level = logging.DEBUG if route in {"/metrics", "/health/live", "/health/ready"} else logging.INFO
    line = {"method": scope["method"], "route": route, "status": status, "milliseconds": round(seconds * 1000, 1)}
    if key := scope["state"].get("key"):
        line["key"] = key.name
    log.log(level, "%(method)s %(route)s %(status)d %(milliseconds).0f ms", line, extra=line)
