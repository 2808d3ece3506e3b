"""The log: one line for each event, JSON or text, with the id of its request.

It holds no secrets: no headers, no bodies, no addresses of callers.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from logging.config import dictConfig
from logging.handlers import QueueHandler, QueueListener
from queue import Full, Queue
from tempfile import NamedTemporaryFile
from typing import Any, Literal

from opentelemetry import trace
from pythonjsonlogger.core import RESERVED_ATTRS

from service.observability import metrics

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the current request."""

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s%(of_request)s"
_FIELDS = "%(levelname)s %(name)s %(message)s"
_STDERR = 2
_LINES = 4096
"""Lines that wait for a reader of standard error; further ones are dropped and counted."""
_LAST_SECONDS = 1.0
"""Time at the end for the lines that wait."""


class LineHandler(QueueHandler):
    """Leaves the writing to a thread, so that a standard error that nobody reads stops the log only."""

    def __init__(self) -> None:
        self._lines: Queue[str | None] = Queue(_LINES)
        super().__init__(self._lines)
        self._dropped = 0
        self._writer = _Writer(self._lines)
        self._writer.start()

    @property
    def is_stuck(self) -> bool:
        """True if nobody read standard error until the end."""
        return self._writer.is_alive

    def prepare(self, record: logging.LogRecord) -> str:
        """The line: the request's id is known in the thread of the caller only."""
        return self.format(record)

    def enqueue(self, record: Any) -> None:
        """Queues a line, or counts it as dropped."""
        try:
            if self._dropped:
                self.queue.put_nowait(self.format(_dropped(self._dropped)))
                self._dropped = 0
            self.queue.put_nowait(record)
        except Full:
            self._dropped += 1
            metrics.log_lines_dropped.inc()

    def close(self) -> None:
        """Writes what waits, and how many lines are missing, unless nobody reads."""
        with suppress(Full):
            if self._dropped:
                self._lines.put(self.format(_dropped(self._dropped)), timeout=_LAST_SECONDS)
            self._lines.put(None, timeout=_LAST_SECONDS)  # the writer's sign to end
        self._writer.stop()
        super().close()


class _Writer(QueueListener):
    """Writes lines to the descriptor: a stream's lock, held by a thread that waits, would stop the process's end."""

    def handle(self, record: Any) -> None:
        rest = f"{record}\n".encode(errors="backslashreplace")
        with suppress(OSError):
            while rest:
                rest = rest[os.write(_STDERR, rest) :]

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        if self._thread:
            self._thread.join(_LAST_SECONDS)


def _dropped(lines: int) -> logging.LogRecord:
    said = f"{lines} lines of the log were dropped: nobody read standard error"
    fields = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "msg": said, "of_request": ""}
    return logging.makeLogRecord(fields)


class OfRequest(logging.Filter):
    """Adds the request's id to a line, and its trace's id if there is one."""

    def filter(self, record: logging.LogRecord) -> bool:
        identity = request_id.get()
        record.of_request = f" id={identity}" if identity else ""
        if identity:
            record.request_id = identity
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            record.trace_id = trace.format_trace_id(span.trace_id)
        return True


def configuration(kind: Literal["json", "text"], level: str) -> dict[str, Any]:
    """A configuration for `logging.config.dictConfig`, used for vLLM's processes too."""
    as_json = {
        "()": "pythonjsonlogger.json.JsonFormatter",
        "fmt": _FIELDS,
        "rename_fields": {"levelname": "level", "name": "logger"},
        "reserved_attrs": [*RESERVED_ATTRS, "of_request", "vllm_process_name"],
        "timestamp": True,
    }
    formatter = as_json if kind == "json" else {"format": _TEXT}
    handler = {
        "()": "service.observability.logs.LineHandler",
        "formatter": "line",
        "filters": ["of_request"],
    }
    libraries = "WARNING" if level == "DEBUG" else "ERROR"
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {
            "of_request": {"()": "service.observability.logs.OfRequest"},
            # No filter: vLLM's processes read this before anything else of the service.
            "end_with": {"()": "service.processes.end_with", "service": os.getpid()},
        },
        "formatters": {"line": formatter},
        "handlers": {"line": handler},
        "root": {"handlers": ["line"], "level": "WARNING"},
        "loggers": {
            "service": {"level": level},
            "vllm": {"level": libraries},  # it warns forty times at every start
            "python_multipart": {"level": "ERROR"},  # it warns of every bad form
        },
    }


def wanted(kind: Literal["json", "text"] | None) -> Literal["json", "text"]:
    """The chosen format, or text for a terminal and JSON for a machine."""
    return kind or ("text" if sys.stderr.isatty() else "json")


@contextmanager
def logging_to_stderr(kind: Literal["json", "text"] | None, level: str) -> Iterator[str]:
    """Configures the log of this process, and yields a file that configures vLLM's processes alike."""
    chosen = configuration(wanted(kind), level)
    dictConfig(chosen)
    logging.captureWarnings(True)  # Python's own format is not JSON
    try:
        with NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(chosen, file)
            file.flush()
            yield file.name
    finally:
        logging.captureWarnings(False)
        root = logging.getLogger()
        for handler in root.handlers[:]:
            root.removeHandler(handler)
            handler.close()
            if isinstance(handler, LineHandler) and handler.is_stuck:
                os.dup2(os.open(os.devnull, os.O_WRONLY), _STDERR)  # or last words of libraries wait for ever
