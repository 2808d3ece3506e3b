"""Long answers as JSON, written in a thread entry by entry: the event loop has its turn between any two."""

from __future__ import annotations

import asyncio

from fastapi import Response
from pydantic import BaseModel


async def encoded(answer: BaseModel, entries: str = "results") -> Response:
    """The response with an answer whose field `entries` is a list that may be long."""
    return Response(await asyncio.to_thread(_json, answer, entries), media_type="application/json")


def _json(answer: BaseModel, entries: str) -> bytes:
    rest = answer.model_dump_json(exclude={entries}).encode()
    listed = b",".join(entry.model_dump_json().encode() for entry in getattr(answer, entries))
    return b'{"%b":[%b],%b' % (entries.encode(), listed, rest[1:])
