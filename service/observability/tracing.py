"""Traces over OTLP: one span for each request and stage, in the trace of the caller's `traceparent`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from opentelemetry import trace

from service.extras import require

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_UNTRACED = "health,metrics,docs,openapi.json,static-offline-docs"


def start_tracing(endpoint: str | None, model: str) -> None:
    """Starts sending spans to a collector, if there is one. Raises UserError if the extra is missing."""
    if endpoint is None:
        return
    require("otel", "the setting otlp_endpoint")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    export_to(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces"), model)


def export_to(exporter: SpanExporter, model: str) -> None:
    """Gives every finished span to `exporter`, in batches."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": model}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def trace_requests(app: FastAPI) -> None:
    """Puts a span around every request but probes, once tracing has started."""
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    FastAPIInstrumentor.instrument_app(app, excluded_urls=_UNTRACED, exclude_spans=["receive", "send"])
