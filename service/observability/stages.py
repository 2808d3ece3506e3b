"""The parts of an answer, measured and traced alike: decode, queue, infer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from opentelemetry import trace

from service.observability import metrics

_tracer = trace.get_tracer("service")


@contextmanager
def stage(name: Literal["decode", "queue", "infer"]) -> Iterator[None]:
    """Times the block in `iqa_stage_seconds`, and puts a span around it where traces are sent."""
    with _tracer.start_as_current_span(name), metrics.stage_seconds.labels(name).time():
        yield
