"""The Prometheus operator gets these: the rules of docker/monitoring, and a port to scrape."""

from __future__ import annotations

import re
from pathlib import Path

from service.api.routes import health
from tests.deployment import rules
from tests.deployment.kustomize import Object
from tests.deployment.worlds import World, world


def monitored(manifests: Path) -> tuple[World, Object]:
    cluster = world(manifests, "monitoring")
    return cluster, cluster.get("ServiceMonitor", "evoquality")["spec"]


def test_the_clusters_rules_are_those_of_prometheus_alone():
    assert rules.FILE.read_text() == rules.text(), "run `make alerts`"


def test_every_operators_port_is_scraped_where_metrics_are(manifests: Path):
    cluster, monitor = monitored(manifests)
    (endpoint,) = monitor["endpoints"]
    services = [
        service
        for service in cluster.all("Service")
        if monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        and endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    ]
    assert [service["metadata"]["name"] for service in services] == ["operators"]
    assert endpoint["path"] in {route.path for route in health.scraped.routes}


def test_the_job_is_named_as_the_alerts_name_it(manifests: Path):
    cluster, monitor = monitored(manifests)
    named = cluster.get("Service", "operators")["metadata"]["labels"][monitor["jobLabel"]]
    assert set(re.findall(r'job="(\w+)"', rules.SOURCE.read_text())) == {named}


def test_grafana_finds_the_dashboard(manifests: Path):
    cluster, _ = monitored(manifests)
    dashboard = cluster.get("ConfigMap", "dashboard")
    assert dashboard["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert dashboard["data"]["dashboard.json"] == (rules.SOURCE.parent / "dashboard.json").read_text()


def test_replicas_are_scaled_before_they_turn_requests_away(manifests: Path):
    """The threshold is a replica's share; beyond max_in_flight it answers 503."""
    cluster = world(manifests, "keda")
    scaled = cluster.get("ScaledObject", "service")["spec"]
    (trigger,) = scaled["triggers"]
    (pod,) = cluster.selected({"app.kubernetes.io/component": "service"})
    assert (
        float(trigger["metadata"]["threshold"])
        < float(cluster.environment(pod).get("EVOQUALITY_MAX_IN_FLIGHT", 256)) / 2
    )
    assert 1 <= scaled["minReplicaCount"] <= scaled["fallback"]["replicas"] <= scaled["maxReplicaCount"]
