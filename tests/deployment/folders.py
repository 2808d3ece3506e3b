"""The kustomizations of k8s/: everything that can be applied."""

from __future__ import annotations

from tests.deployment.conftest import ROOT
from tests.deployment.kustomize import load

KUSTOMIZATIONS = sorted(
    str(file.parent.relative_to(ROOT / "k8s"))
    for file in (ROOT / "k8s").rglob("kustomization.yaml")
    if load(file)[0]["kind"] == "Kustomization"
)
