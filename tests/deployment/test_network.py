"""Who may reach whom, worked out from the NetworkPolicies as a cluster would."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from tests.deployment.kustomize import Object
from tests.deployment.worlds import Pod, World, values

HUB, METADATA, NEIGHBOUR = "151.101.1.1", "169.254.169.254", "10.1.2.3"


def matches(selector: Object, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", []))


def rules(cluster: World, pod: Pod, way: str) -> Iterator[Object]:
    """Of the policies that select a pod. `way` is ingress or egress."""
    for policy in cluster.all("NetworkPolicy"):
        if matches(policy["spec"]["podSelector"], pod.labels) and way.title() in policy["spec"]["policyTypes"]:
            yield from policy["spec"].get(way, [])


def opens(rule: Object, port: int) -> bool:
    return "ports" not in rule or port in {each["port"] for each in rule["ports"]}


def peer(each: Object, labels: dict[str, str], namespace: dict[str, str] | None) -> bool:
    """True if it is a pod with these labels; `namespace` holds those of a namespace that is not the pod's own."""
    if "ipBlock" in each:
        return False
    where = matches(each["namespaceSelector"], namespace or {}) if "namespaceSelector" in each else namespace is None
    return where and matches(each.get("podSelector", {}), labels)


def reaches(cluster: World, source: Pod, target: Pod, port: int) -> bool:
    out = any(
        opens(r, port) and any(peer(p, target.labels, None) for p in r["to"]) for r in rules(cluster, source, "egress")
    )
    return out and lets_in(cluster, target, port, source.labels, None)


def lets_in(cluster: World, target: Pod, port: int, labels: dict[str, str], namespace: dict[str, str] | None) -> bool:
    found = rules(cluster, target, "ingress")
    return any(opens(r, port) and any(peer(p, labels, namespace) for p in r["from"]) for r in found)


def reaches_address(cluster: World, source: Pod, address: str, port: int) -> bool:
    def inside(block: Object) -> bool:
        return ip_address(address) in ip_network(block["cidr"]) and not any(
            ip_address(address) in ip_network(other) for other in block.get("except", [])
        )

    blocks = (
        p["ipBlock"] for r in rules(cluster, source, "egress") if opens(r, port) for p in r["to"] if "ipBlock" in p
    )
    return any(map(inside, blocks))


def of(cluster: World, component: str) -> Pod:
    return cluster.selected({"app.kubernetes.io/component": component})[0]


def test_what_no_rule_allows_is_denied(cluster: World):
    (everything,) = (
        each["spec"] for each in cluster.all("NetworkPolicy") if each["metadata"]["name"] == "default-deny"
    )
    assert everything == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_service_reaches_nobody(cluster: World):
    service = of(cluster, "service")
    assert not list(rules(cluster, service, "egress"))


def test_clients_reach_the_public_port_alone(cluster: World):
    service, labelled = of(cluster, "service"), {"evoquality/client": "true"}
    assert lets_in(cluster, service, 8000, labelled, {"kubernetes.io/metadata.name": "web"})
    assert lets_in(cluster, service, 8000, {}, {"kubernetes.io/metadata.name": "ingress", **labelled})
    assert not lets_in(cluster, service, 8000, {}, {"kubernetes.io/metadata.name": "web"})
    assert not lets_in(cluster, service, 8001, labelled, {"kubernetes.io/metadata.name": "web"})
    assert not lets_in(cluster, service, 8001, {}, {"kubernetes.io/metadata.name": "ingress", **labelled})


def test_prometheus_and_the_trainer_reach_the_operators_port_alone(cluster: World):
    service, trainer = of(cluster, "service"), of(cluster, "trainer")
    assert lets_in(cluster, service, 8001, {}, {"kubernetes.io/metadata.name": "monitoring"})
    assert not lets_in(cluster, service, 8000, {}, {"kubernetes.io/metadata.name": "monitoring"})
    assert reaches(cluster, trainer, service, 8001)
    assert not reaches(cluster, trainer, service, 8000)


def test_the_trainer_reaches_whom_it_is_told_to_ask(cluster: World):
    for trainer in cluster.selected({"app.kubernetes.io/component": "trainer"}):
        operator = cluster.environment(trainer)["EVOQUALITY_TRAINER_OPERATOR"].removeprefix("http://").partition(":")
        for target in cluster.selected(cluster.get("Service", operator[0])["spec"]["selector"]):
            assert reaches(cluster, trainer, target, int(operator[2]))


def test_trainers_on_several_nodes_reach_each_other_on_any_port(cluster: World):
    trainer = of(cluster, "trainer")
    assert reaches(cluster, trainer, trainer, 29500)
    assert reaches(cluster, trainer, trainer, 41234)


def test_the_import_alone_reaches_the_hub_and_nothing_of_the_cluster(cluster: World):
    for pod in cluster.pods():
        assert reaches_address(cluster, pod, HUB, 443) is (pod.component == "import")
        assert not any(reaches_address(cluster, pod, inside, 443) for inside in (METADATA, NEIGHBOUR))
        assert not reaches_address(cluster, pod, HUB, 80)


@pytest.mark.parametrize(("component", "resolves"), [("trainer", True), ("import", True), ("service", False)])
def test_names_are_resolved_by_those_that_call_others(cluster: World, component: str, resolves: bool):
    dns = {"k8s-app": "kube-dns"}, {"kubernetes.io/metadata.name": "kube-system"}
    found = rules(cluster, of(cluster, component), "egress")
    assert any(opens(r, 53) and any(peer(p, *dns) for p in r["to"]) for r in found) is resolves


def test_every_policy_selects_pods_and_ports_that_exist(cluster: World):
    for policy in cluster.all("NetworkPolicy"):
        pods = [pod for pod in cluster.pods() if matches(policy["spec"]["podSelector"], pod.labels)]
        assert pods, policy["metadata"]["name"]
        for rule in policy["spec"].get("ingress", []):
            assert {each["port"] for each in rule.get("ports", [])} <= {
                port for pod in pods for port in pod.ports.values()
            }
        for rule in (*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])):
            for each in (*rule.get("from", []), *rule.get("to", [])):
                if "podSelector" in each and "namespaceSelector" not in each:
                    assert any(matches(each["podSelector"], pod.labels) for pod in cluster.pods()), each


def test_labels_in_selectors_are_those_of_the_pods(cluster: World):
    components = {pod.component for pod in cluster.pods()}
    for labels in values(cluster.all("NetworkPolicy"), "matchLabels"):
        component = labels.get("app.kubernetes.io/component")
        assert component is None or component in components
