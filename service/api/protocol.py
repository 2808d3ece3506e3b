"""uvicorn's HTTP protocol with deadlines and a size limit for the head of a request, and a limit of connections.

uvicorn waits for ever for a head that never ends, and for the rest of a body after its request was answered. Its own
limit of connections counts requests only, so silent connections pile up.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024


class PatientProtocol(HttpToolsProtocol):
    """Closes surplus connections, and those whose next head or unread rest of a body takes too long."""

    seconds: ClassVar[float]
    most: ClassVar[int]

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.close()
        self._awaits_head = True
        self._head_ended = False
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        only_head = self._awaits_head
        if only_head:
            self._start()
        self._head_ended = False
        super().data_received(data)
        if only_head and not self._head_ended:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.close()

    def on_message_begin(self) -> None:
        self._start()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._awaits_head = False
        self._head_ended = True
        self._head_bytes = 0
        self._stop()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._awaits_head = True
        self._stop()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._awaits_head and not self.transport.is_closing():
            self._start()

    def _start(self) -> None:
        """Starts the clock unless it runs. Bytes that arrive meanwhile do not reset it."""
        if self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self._late)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self.cycle is not None and not self.cycle.response_complete:
            self._start()  # an answer is being sent; the next head may wait for it
        else:
            self.transport.close()


def patient_protocol(seconds: float, most: int) -> type[PatientProtocol]:
    """A protocol class with `seconds` for a head and at most `most` connections to a server."""
    return type("PatientProtocol", (PatientProtocol,), {"seconds": seconds, "most": most})
