"""The alerts as the Prometheus operator takes them: `make alerts` writes k8s/components/monitoring/rules.yaml.

kustomize reads nothing from another folder but kustomizations, and Prometheus takes no file of the operator's kind: one
of the two has to be made of the other.
"""

from __future__ import annotations

import yaml

from tests.deployment.conftest import ROOT

SOURCE = ROOT / "docker/monitoring/alerts.yaml"
FILE = ROOT / "k8s/components/monitoring/rules.yaml"
_HEAD = "# Made by `make alerts` from docker/monitoring/alerts.yaml.\n"


def text() -> str:
    """The content that the file should have."""
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "evoquality",
            "namespace": "evoquality",
            "labels": {"release": "kube-prometheus-stack"},
        },
        "spec": yaml.safe_load(SOURCE.read_text()),
    }
    return _HEAD + yaml.safe_dump(rule, sort_keys=False, width=120)


if __name__ == "__main__":
    FILE.write_text(text())
