"""Large answers as JSON, encoded in a thread."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.responses import Response


async def encoded(answer: BaseModel) -> Response:
    """The response with an answer that may have thousands of items."""
    return Response(await asyncio.to_thread(_encode, answer), media_type="application/json")


def _encode(answer: BaseModel) -> bytes:
    """Encodes the items of lists one by one: in a single long call no other thread could run, the loop's included."""
    fields = (b'"%s":%s' % (name.encode(), _value(value)) for name, value in answer)
    return b"{%s}" % b",".join(fields)


def _value(value: object) -> bytes:
    return b"[%s]" % b",".join(map(to_json, value)) if isinstance(value, list) else to_json(value)
