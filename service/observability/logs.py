"""The log: one line for each event, JSON or text, with the id of its request.

It holds no secrets: no headers, no bodies, no addresses of callers.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from logging.config import dictConfig
from tempfile import NamedTemporaryFile
from typing import Any, Literal

from opentelemetry import trace
from pythonjsonlogger.core import RESERVED_ATTRS

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the current request."""

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s%(of_request)s"
_FIELDS = "%(levelname)s %(name)s %(message)s"


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
        "class": "logging.StreamHandler",
        "stream": "ext://sys.stderr",
        "formatter": "line",
        "filters": ["of_request"],
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"of_request": {"()": "service.observability.logs.OfRequest"}},
        "formatters": {"line": formatter},
        "handlers": {"line": handler},
        "root": {"handlers": ["line"], "level": "WARNING"},
        "loggers": {"service": {"level": level}, "python_multipart": {"level": "ERROR"}},  # it warns of every bad form
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
        logging.getLogger().handlers.clear()
