"""The renderer of these tests against kubectl's own, where it is on the machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deployment.folders import KUSTOMIZATIONS
from tests.deployment.kustomize import Object, render

OLDEST = (1, 27)


def kubectl_is_new_enough() -> bool:
    if not shutil.which("kubectl"):
        return False
    told = subprocess.run(["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True).stdout
    version = json.loads(told)["clientVersion"]
    return (int(version["major"]), int(version["minor"].rstrip("+"))) >= OLDEST


def by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


@pytest.mark.skipif(not kubectl_is_new_enough(), reason="no kubectl with a kustomize of these days")
@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_a_kustomization_is_rendered_as_kubectl_does(manifests: Path, folder: str):
    told = subprocess.run(["kubectl", "kustomize", manifests / folder], capture_output=True, text=True, check=True)
    assert by_name(render(manifests / folder)) == by_name(list(yaml.safe_load_all(told.stdout)))


OF_ONES_OWN = """
resources: [../overlays/gpu-7b]
components: [../components/rollout, ../components/replicas, ../components/monitoring, ../components/keda]
"""


def test_options_combine_and_the_rollout_engine_is_the_service_in_another_role(manifests: Path):
    own = manifests / "own"
    own.mkdir()
    (own / "kustomization.yaml").write_text(OF_ONES_OWN)
    deployments = {each["metadata"]["name"]: each["spec"] for each in render(own) if each["kind"] == "Deployment"}
    service, rollout = (deployments[name]["template"]["spec"] for name in ("service", "rollout"))
    service.pop("topologySpreadConstraints")
    ours, trainers = service["containers"][0], rollout["containers"][0]
    assert ours["resources"]["limits"]["memory"] == "32Gi"
    assert trainers["env"][:2] == [
        {"name": "EVOQUALITY_ROLE", "value": "rollout"},
        {"name": "EVOQUALITY_FOLLOW", "value": "false"},
    ]
    assert trainers["env"][2:] == ours["env"]
    trainers["env"] = ours["env"]
    assert rollout == service
