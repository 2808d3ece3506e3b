"""The queries of the dashboard and the alert rules, to be checked against real metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import promql_parser
import yaml
from prometheus_client.parser import text_string_to_metric_families

FOLDER = Path(__file__).parents[1] / "docker/monitoring"
SCALING = Path(__file__).parents[1] / "k8s/components/keda/scaledobject.yaml"
TARGET_LABELS = {"instance", "job", "namespace"}
"""Prometheus itself adds them to everything it scrapes, its operator the namespace."""
OWN = {"up"}


@dataclass(frozen=True)
class Asked:
    """One selector of one query: a metric, and the labels that it filters by."""

    where: str
    metric: str
    labels: frozenset[str]


def rules() -> list[dict[str, object]]:
    """Every alert rule."""
    return [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]


def queries() -> Iterator[tuple[str, str]]:
    """Every query, with where it stands."""
    for rule in rules():
        yield f"alert {rule['alert']}", str(rule["expr"])
    for trigger in yaml.safe_load(SCALING.read_text())["spec"]["triggers"]:
        yield "scaling", trigger["metadata"]["query"]
    board = json.loads((FOLDER / "dashboard.json").read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]
    for annotation in board["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"]
    for variable in board["templating"]["list"]:
        if values := re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]):
            yield f"variable {variable['name']}", f"sum by ({values[2]}) ({values[1]})"


def asked() -> list[Asked]:
    """Every selector of every query. Raises ValueError if a query is no PromQL."""
    return [selector for where, query in queries() for selector in _selectors(where, _without_variables(query))]


def grouping_labels() -> set[str]:
    """The labels that queries group by, `le` left out."""
    named = (labels for _, query in queries() for labels in re.findall(r"by \(([^)]*)\)", query))
    return {label.strip() for labels in named for label in labels.split(",")} - {"le"}


def scraped(text: str) -> dict[str, set[str]]:
    """The labels of every metric in the answer of `/metrics`, by the name of its samples."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def _without_variables(query: str) -> str:
    return query.replace("$__rate_interval", "5m")


def _selectors(where: str, query: str) -> Iterator[Asked]:
    pending = [promql_parser.parse(query)]
    while pending:
        part = pending.pop()
        if isinstance(part, promql_parser.VectorSelector):
            labels = frozenset(matcher.name for matcher in part.matchers.matchers if matcher.name != "__name__")
            yield Asked(where, part.name, labels)
        for name in ("lhs", "rhs", "expr", "vector_selector", "args"):
            inner = getattr(part, name, None)
            pending += inner if isinstance(inner, list) else [inner] if inner is not None else []
