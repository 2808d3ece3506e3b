"""The path under which a proxy shows the service."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class PrefixMiddleware:
    """Puts the application's `root_path` back before a path from which a proxy took it: ASGI wants it in both."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not f"{scope['path']}/".startswith(f"{scope['root_path']}/"):
            scope["path"] = scope["root_path"] + scope["path"]
        await self._app(scope, receive, send)
