"""The service's own metrics; vLLM's stand beside them in prometheus_client's global registry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from opentelemetry import trace
from prometheus_client import Counter, Gauge, Histogram

_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STAGE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

requests = Counter("iqa_requests", "Answered HTTP requests.", ["route", "status"])
request_seconds = Histogram(
    "iqa_request_seconds", "Time to answer a request, in seconds.", ["route"], buckets=_REQUEST_BUCKETS
)
stage_seconds = Histogram(
    "iqa_stage_seconds",
    "Time of a part of an answer, in seconds: decode pictures, queue before the swap lock, infer in the engine.",
    ["stage"],
    buckets=_STAGE_BUCKETS,
)
ready = Gauge(
    "iqa_ready", "1 if the engine answered the last probe, the active version could be loaded and nothing drains."
)
in_flight = Gauge("iqa_in_flight", "Public requests being answered.")
rejected = Counter(
    "iqa_rejected", "Requests refused or given up; the reason is the error's code, or client_gone.", ["reason"]
)
answers = Counter(
    "iqa_answers", "Answers of the model: samples, thoughts, or one an image or pair in expected mode.", ["task"]
)
unreadable = Counter(
    "iqa_unreadable_answers",
    "Answers that could not be parsed; in expected mode, the probability of unparsable answers.",
    ["task"],
)
cut_off = Counter(
    "iqa_cut_off_answers", "Answers that the limit of tokens ended too early; not among the unreadable ones.", ["task"]
)
cache_requests = Counter("iqa_cache_requests", "Repeatable questions looked up in the cache.", ["outcome"])
cache_entries = Gauge("iqa_cache_entries", "Answers in the cache.")
swaps = Counter("iqa_swaps", "Swaps of the weights.", ["outcome"])
for outcome in ("done", "refused"):
    swaps.labels(outcome)  # counts from 0: Prometheus sees no increase in a series that begins at 1
swap_blackout_seconds = Histogram(
    "iqa_swap_blackout_seconds",
    "Blackout of a swap: the time it kept the swap lock closed, in seconds.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
canary_readable = Gauge(
    "iqa_canary_readable_share", "Share of the canary pictures that the serving version answered readably."
)
model_info = Gauge("iqa_model_info", "The version that serves.", ["model", "version"])

log_lines_dropped = Counter(
    "iqa_log_lines_dropped", "Lines of the log that were lost because standard error was not read."
)

behind_seconds = Gauge(
    "iqa_behind_seconds",
    "Seconds for which the store's pointer has named another version than the one that serves, or could not be read; "
    "0 otherwise, and in the role rollout.",
)


def count_answers(task: str, asked: int, unreadable_share: float, cut_off_share: float) -> None:
    """Counts the answers to one image or pair."""
    answers.labels(task).inc(asked)
    unreadable.labels(task).inc(asked * unreadable_share)
    cut_off.labels(task).inc(asked * cut_off_share)


def set_version(model: str, version: str) -> None:
    """Sets the serving version."""
    model_info.clear()
    model_info.labels(model, version).set(1)


_tracer = trace.get_tracer("service")


@contextmanager
def stage(name: Literal["decode", "queue", "infer"]) -> Iterator[None]:
    """Times the block in `iqa_stage_seconds`, and traces it as a span if tracing is on."""
    with _tracer.start_as_current_span(name), stage_seconds.labels(name).time():
        yield
