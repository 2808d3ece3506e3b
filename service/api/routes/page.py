"""`GET /`: the page and its files."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from service.api.service import service_of

_WEB = Path(__file__).parents[2] / "web"
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d+)?", re.ASCII)
_LOOPBACK = "http://localhost:* http://127.0.0.1:*"
"""The local ends of an operator's tunnel."""
_HEADERS = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

router = APIRouter(include_in_schema=False)
files = StaticFiles(directory=_WEB)
document = (_WEB / "index.html").read_text(encoding="utf-8")


@router.head("/")
@router.get("/")
async def page(request: Request) -> Response:
    """The page. Its policy allows its own scripts only, and connections to this service only."""
    operators = _operators(request)
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        f"connect-src 'self' {_LOOPBACK} {'/'.join(operators.split('/')[:3])}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    html = document.replace("{operators}", escape(operators))
    return HTMLResponse(html, headers={**_HEADERS, "Content-Security-Policy": policy})


@router.get("/web/{name}")
async def file(request: Request, name: str) -> Response:
    """One of the page's files."""
    response = await files.get_response(name, request.scope)
    response.headers.update(_HEADERS)
    return response


def _operators(request: Request) -> str:
    """The operators' address as the browser of this request can reach it."""
    settings = service_of(request).settings
    if settings.page_operator_url:
        return settings.page_operator_url
    host = _HOST.fullmatch(request.headers.get("host", ""))
    return f"{request.scope['scheme']}://{host[1] if host else 'localhost'}:{settings.operator_port}"
