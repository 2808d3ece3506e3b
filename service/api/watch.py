"""Cancels a request, and its work in the engine, when its client hangs up, its deadline passes or the engine hangs."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.observe import request_id
from service.api.problems import service_problem
from service.api.service import service_of
from service.errors import BodyTimeout, DeadlineExceeded, InvalidRequest, ProblemError, Swapping
from service.observability import metrics

TIMEOUT_HEADER = "X-Request-Timeout-Ms"
CLIENT_GONE = 499
"""For metrics and the log: nginx's status for a client that hung up."""
_LAST_WORDS_SECONDS = 1.0
"""Time before the deadline in which a streamed answer ends by itself; at most a quarter of the whole."""


class Watch:
    """ASGI middleware. `seconds` limits a whole request, `body_seconds` its body; None sets no limit."""

    def __init__(self, app: ASGIApp, seconds: float | None = None, body_seconds: float | None = None) -> None:
        self._app = app
        self._seconds = seconds
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            seconds = _allowed(scope, self._seconds)
        except InvalidRequest as error:
            await service_problem(Request(scope), error)(scope, receive, send)
            return
        if seconds is not None:
            until = asyncio.get_running_loop().time() + seconds - min(_LAST_WORDS_SECONDS, seconds / 4)
            scope.setdefault("state", {})["deadline"] = until
        client = _Client(receive, send, self._body_seconds)
        work = asyncio.ensure_future(self._app(scope, client.receive, client.send))
        hang = service_of(Request(scope)).watchdog.hang()
        try:
            ends = (work, client.gone, hang)
            await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if client.answered:
                await work
            late = _too_late(Request(scope))
        finally:
            given_up = not work.done()
            await _end(work)
            hang.cancel()
            await client.end()
        if given_up:
            await _give_up(scope, client, late)
        elif not work.cancelled():
            work.result()


def deadline(request: Request) -> float | None:
    """The loop's time at which a streamed answer must end before it is cut off; None for no limit."""
    found: float | None = getattr(request.state, "deadline", None)
    return found


class WatchedRoute(APIRoute):
    """A route whose work ends when its client goes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app = Watch(self.app)


class _Client:
    """One client: reads the body within its time, then listens for the hang-up."""

    def __init__(self, receive: Receive, send: Send, body_seconds: float | None) -> None:
        loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.started = False
        self.answered = False
        self._receive = receive
        self._send = send
        self._body_until = None if body_seconds is None else loop.time() + body_seconds
        self._listener: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        """The next part of the body. Raises BodyTimeout. Never returns after the client has hung up."""
        if self._listener:
            await asyncio.shield(self.gone)
            return {"type": "http.disconnect"}
        try:
            async with asyncio.timeout_at(self._body_until):
                message = await self._receive()
        except TimeoutError:
            raise BodyTimeout("The request's body did not arrive in time.") from None
        if message["type"] == "http.disconnect":
            self.gone.set_result(None)
            await asyncio.get_running_loop().create_future()
        if not message.get("more_body", False):
            self._listener = asyncio.create_task(self._listen())
        return message

    async def send(self, message: Message) -> None:
        """Passes a message on and notes the progress of the answer."""
        self.started = True
        self.answered = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def end(self) -> None:
        """Stops listening."""
        self.gone.cancel()
        if self._listener:
            await _end(self._listener)

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.answered and not self.gone.done():
            self.gone.set_result(None)


def _allowed(scope: Scope, seconds: float | None) -> float | None:
    """Seconds for a request: the service's limit, or less if the caller asks for less. Raises InvalidRequest."""
    asked = Headers(scope=scope).get(TIMEOUT_HEADER)
    if asked is None:
        return seconds
    if not (asked.isascii() and asked.isdecimal() and len(asked) < 10 and int(asked)):
        raise InvalidRequest(f"{TIMEOUT_HEADER}: give a whole number of milliseconds, at least 1.")
    return min(int(asked) / 1000, seconds or float("inf"))


async def _give_up(scope: Scope, client: _Client, late: ProblemError) -> None:
    """Answers a request that was given up. A stream that has begun stays without its end, which closes it."""
    if client.gone.done() and not client.gone.cancelled():
        metrics.rejected.labels("client_gone").inc()
        response = Response(status_code=CLIENT_GONE)
    else:
        response = service_problem(Request(scope), late)
    if not client.started:
        await response(scope, client.receive, client.send)


def _too_late(request: Request) -> ProblemError:
    """The reason why a request has no answer yet."""
    try:
        service_of(request).watchdog.check()
    except ProblemError as hang:
        return hang
    if service_of(request).swap_lock.blocks(request_id(request)):
        return Swapping("The weights are being replaced; try again.")
    return DeadlineExceeded("The answer took longer than the service or the request allows.")


async def _end(task: asyncio.Future[None]) -> None:
    """Cancels a task and waits until it has released everything."""
    task.cancel()
    await asyncio.wait((task,))
