"""CORS: of chosen origins on the public port, and on the operators' port, so that the page on the public port may swap
versions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from evoquality.answers import VERSION_HEADER

_LOOPBACK = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"
_SWAPS = re.compile(r"/internal/(rollback|versions/[^/]+/promote)")
_EXPOSED = ("Retry-After", "X-Request-Id", VERSION_HEADER)


def public_cors(app: ASGIApp, origins: Sequence[str]) -> CORSMiddleware:
    """CORS for the public routes, without cookies. `origins` are those that may call them, or "*"."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("Authorization", "X-Request-Id", "X-Request-Timeout-Ms"),
        expose_headers=_EXPOSED,
    )


class OperatorCorsMiddleware(CORSMiddleware):
    """CORS for promotion and rollback only, without cookies: the page sends the key itself.

    `origins`: the allowed ones, for example "https://iqa.example.com"; None allows loopback addresses.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str] | None) -> None:
        super().__init__(
            app,
            allow_origins=origins or (),
            allow_origin_regex=_LOOPBACK if origins is None else None,
            allow_methods=("POST",),
            allow_headers=("Authorization",),
            expose_headers=_EXPOSED,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _SWAPS.fullmatch(scope["path"]):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)
