"""Long answers, sent line by line as they become ready, with signs of life while nothing is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Annotated, Any, Generic, Self, TypeVar

from fastapi import Depends, Request, Response
from starlette.responses import StreamingResponse

from evoquality.lines import NDJSON, Line
from service.api.problems import problem_of

HEARTBEAT_SECONDS = 10.0
"""Between signs of life: several of them within the silence that a client bears."""

R = TypeVar("R")


async def _until_answered() -> AsyncIterator[AsyncExitStack]:
    """Yields a stack that is closed when the last byte is sent, or the request is given up."""
    async with AsyncExitStack() as stack:
        yield stack


UntilAnswered = Annotated[AsyncExitStack, Depends(_until_answered)]


def wants_lines(request: Request) -> bool:
    """True if the caller asks for an answer line by line."""
    return NDJSON in request.headers.get("accept", "")


def described(line: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that answers line by line on request."""
    return {200: {"content": {NDJSON: {"schema": {"type": "string", "description": f"A {line} a line."}}}}}


class Lines(Generic[R]):
    """Work that reports here, and ends with its block. What it raises late becomes the last line."""

    def __init__(self, request: Request, work: Callable[[Lines[R]], Coroutine[Any, Any, object]]) -> None:
        self._request = request
        self._work = work
        self._version: str | None = None
        self._ready: asyncio.Queue[Line[R] | None] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._work(self))
        self._running.add_done_callback(lambda _: self._ready.put_nowait(None))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._running.cancel()
        await asyncio.wait((self._running,))

    def begun(self, version: str) -> None:
        """The weights that answer are known."""
        self._version = version
        self._ready.put_nowait(Line())

    def finished(self, index: int, result: R) -> None:
        """One result is ready."""
        self._ready.put_nowait(Line(index=index, result=result, version=self._version))

    async def response(self) -> Response:
        """The answer, once there is a first line. Raises what the work raises before."""
        first = await self._next()
        if first is None:
            await self._running
        return StreamingResponse(self._sent(first), media_type=NDJSON)

    async def _next(self) -> Line[R] | None:
        """The next line, or a sign of life; None at the end."""
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                return await self._ready.get()
        except TimeoutError:
            return Line()

    async def _sent(self, line: Line[R] | None) -> AsyncIterator[str]:
        while line is not None:
            yield await asyncio.to_thread(line.model_dump_json) + "\n"
            line = await self._next()
        failure = self._running.exception()
        if isinstance(failure, Exception):
            yield Line(problem=problem_of(self._request, failure)).model_dump_json() + "\n"
