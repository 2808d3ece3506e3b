"""Which pages of other origins may swap versions: the public port's page, on the operators' port."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

_LOOPBACK = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"
_SWAPS = re.compile(r"/internal/(rollback|versions/[^/]+/promote)")


class OperatorCorsMiddleware(CORSMiddleware):
    """CORS for promotion and rollback alone, and without cookies: the key is the page's to send.

    `origins`: those allowed, for example "https://iqa.example.com"; None allows this machine's own.
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
