"""Spans of a request and its stages, in the caller's trace. Collected in memory instead of being sent."""

from __future__ import annotations

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.errors import UserError
from service.observability.tracing import export_to, start_tracing
from tests.service.conftest import World, picture

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """A process has one provider of traces, for good."""
    exporter = InMemorySpanExporter()
    export_to(exporter, "evoquality")
    return exporter


@pytest.fixture
def world(make_world) -> World:
    return make_world(otlp_endpoint="http://127.0.0.1:4318")


def spans(exporter: InMemorySpanExporter, world: World, run, method: str, path: str, **request) -> list[ReadableSpan]:
    async def story() -> httpx.Response:
        async with world.public() as client:
            return await client.request(method, path, **request)

    exporter.clear()
    run(story())
    trace.get_tracer_provider().force_flush()
    return list(exporter.get_finished_spans())


def test_a_request_and_its_stages_are_one_trace(exporter: InMemorySpanExporter, world: World, run):
    found = {span.name: span for span in spans(exporter, world, run, "POST", "/v1/score", files={"image": picture()})}
    assert found.keys() == {"POST /v1/score", "decode", "queue", "infer"}
    root = found.pop("POST /v1/score")
    assert root.attributes["http.route"] == "/v1/score"
    assert root.resource.attributes["service.name"] == "evoquality"
    for span in found.values():
        assert span.parent.span_id == root.context.span_id
        assert root.start_time <= span.start_time <= span.end_time <= root.end_time


def test_the_callers_trace_is_continued(exporter: InMemorySpanExporter, world: World, run):
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    found = spans(exporter, world, run, "POST", "/v1/score", files={"image": picture()}, headers=headers)
    assert {trace.format_trace_id(span.context.trace_id) for span in found} == {TRACE}
    [root] = [span for span in found if span.name == "POST /v1/score"]
    assert trace.format_span_id(root.parent.span_id) == PARENT


def test_probes_are_not_traced(exporter: InMemorySpanExporter, world: World, run):
    for path in ("/health/live", "/health/ready", "/docs"):
        assert spans(exporter, world, run, "GET", path) == []


def test_without_an_endpoint_requests_are_not_traced(exporter: InMemorySpanExporter, make_world, run):
    names = [span.name for span in spans(exporter, make_world(), run, "GET", "/v1/versions")]
    assert names == []


def test_an_endpoint_without_the_sdk_stops_the_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("service.extras.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'evoquality-service\[otel\]'"):
        start_tracing("http://collector:4318", "evoquality")
