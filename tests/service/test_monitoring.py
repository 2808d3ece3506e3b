"""The dashboard and the alerts ask for metrics that exist. `tests/engine` asks vLLM for its own."""

from __future__ import annotations

import re

import yaml
from prometheus_client.metrics import MetricWrapperBase

from service.observability import metrics
from tests.monitoring import FOLDER, OWN, TARGET_LABELS, asked, grouping_labels, rules


def own_samples() -> dict[str, set[str]]:
    """Names and labels of what the service's metrics become when scraped."""
    found: dict[str, set[str]] = {}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            [family] = metric.describe()
            ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
            found |= {family.name + end: set(metric._labelnames) for end in ends}
    return found


def test_every_metric_and_label_that_is_asked_for_exists():
    known = own_samples()
    selectors = asked()
    assert len(selectors) > 20
    for selector in selectors:
        if selector.metric.startswith("vllm:") or selector.metric in OWN:
            continue
        assert selector.metric in known, selector
        assert selector.labels <= known[selector.metric] | TARGET_LABELS, selector


def test_every_label_that_is_grouped_by_exists():
    assert grouping_labels() <= set.union(*own_samples().values()) | TARGET_LABELS


def test_the_dashboard_leaves_none_of_the_services_metrics_out():
    shown = {re.sub(r"_(total|bucket|sum|count)$", "", selector.metric) for selector in asked()}
    families = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in own_samples()}
    assert families <= shown


def test_the_alerts_say_how_bad_it_is_and_what_it_means():
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) >= 9
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))


def test_prometheus_loads_the_alerts_and_scrapes_the_job_they_name():
    configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert all((FOLDER / file).exists() for file in configuration["rule_files"])
    jobs = {job["job_name"] for job in configuration["scrape_configs"]}
    assert jobs == set(re.findall(r'job="(\w+)"', (FOLDER / "alerts.yaml").read_text()))
