"""Every object against Kubernetes' own schemas, strictly: a misspelt field is an error. Those of KEDA, Kueue and the
Prometheus operator against what schemas/ has of theirs."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.deployment.folders import KUSTOMIZATIONS
from tests.deployment.kustomize import Object, render

OLDEST, NEWEST = "1.31", "1.37"
OWN = {file.stem: yaml.safe_load(file.read_text()) for file in (Path(__file__).parent / "schemas").iterdir()}


def check(made: Object, version: str) -> None:
    """Raises if it is none of its kind."""
    if own := OWN.get(made["kind"].lower()):
        jsonschema.Draft202012Validator(own).validate(made)
    else:
        kubernetes_validate.validate(made, version, strict=True)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_every_object_is_one_of_its_kind(manifests: Path, folder: str, version: str):
    for made in render(manifests / folder):
        check(made, version)


@pytest.mark.parametrize("kind", ["Deployment", "ScaledObject"])
def test_a_misspelt_field_is_noticed(manifests: Path, kind: str):
    made = next(each for each in render(manifests / "overlays/keda") if each["kind"] == kind)
    made["spec"]["replica"] = 1
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError), match="replica"):
        check(made, NEWEST)


def test_the_base_applies_to_a_bare_cluster(manifests: Path):
    kinds = {made["kind"].lower() for made in render(manifests / "base")}
    assert kinds.isdisjoint(OWN)
