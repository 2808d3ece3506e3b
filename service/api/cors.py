"""CORS on the operators' port, so that the page on the public port may swap versions."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

_LOOPBACK = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"
_SWAPS = re.compile(r"/internal/(rollback|versions/[^/]+/promote)")


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
            expose_headers=("Retry-After", "X-Request-Id"),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _SWAPS.fullmatch(scope["path"]):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)
