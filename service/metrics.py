"""The service's own metrics; vLLM's stand beside them in prometheus_client's global registry."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

requests = Counter("iqa_requests", "Answered HTTP requests.", ["route", "status"])
request_seconds = Histogram("iqa_request_seconds", "Time to answer a request, in seconds.", ["route"])
in_flight = Gauge("iqa_in_flight", "Public requests being answered.")
rejected = Counter("iqa_rejected", "Requests refused before the engine.", ["reason"])
unreadable = Counter("iqa_unreadable_answers", "Sampled answers that could not be read.", ["task"])
cache_requests = Counter("iqa_cache_requests", "Repeatable questions looked up in the cache.", ["outcome"])
cache_entries = Gauge("iqa_cache_entries", "Answers in the cache.")
swaps = Counter("iqa_swaps", "Swaps of the weights.", ["outcome"])
swap_blackout_seconds = Histogram(
    "iqa_swap_blackout_seconds",
    "Time a swap kept the gate closed, in seconds.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
model_info = Gauge("iqa_model_info", "The version that serves.", ["model", "version"])


def set_version(model: str, version: str) -> None:
    """Names the version that serves."""
    model_info.clear()
    model_info.labels(model, version).set(1)
