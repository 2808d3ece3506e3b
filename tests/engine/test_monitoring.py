"""The dashboard and the alerts against what the real service and vLLM give to Prometheus."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.engine.running import Running
from tests.monitoring import OWN, TARGET_LABELS, asked, scraped

pytestmark = pytest.mark.engine


def test_every_metric_and_label_that_is_asked_for_is_scraped(service: Running, images: list[bytes]):
    service.public.score(images[0])
    found = scraped(httpx.get(f"{service.operator_url}/metrics").text)
    silent = {"iqa_rejected_total", "iqa_unreadable_answers_total"}
    for selector in asked():
        if selector.metric in OWN | silent - found.keys():
            continue
        assert selector.metric in found, selector
        assert selector.labels <= found[selector.metric] | TARGET_LABELS, selector


def test_the_log_is_json_where_no_terminal_is(service: Running, images: list[bytes]):
    """But for what vLLM's processes say while they import it, before it sets up its log."""
    service.public.score(images[0])
    log = (service.store.root.parent / "log").read_text().splitlines()
    ours = log[next(number for number, line in enumerate(log) if "serving version" in line) :]
    lines = [json.loads(line) for line in ours]
    for line in lines:
        assert {"level", "logger", "message", "timestamp"} <= line.keys()
    assert {"service.server", "service.access"} <= {line["logger"] for line in lines}
