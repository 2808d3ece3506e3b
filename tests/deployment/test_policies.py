"""checkov's policies for Kubernetes; what is waived says why in place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.deployment import checkov
from tests.deployment.folders import KUSTOMIZATIONS
from tests.deployment.kustomize import render

WAIVED = {"CKV_K8S_8", "CKV_K8S_9", "CKV_K8S_11", "CKV_K8S_15", "CKV_K8S_43"}


@pytest.fixture(scope="module")
def report(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> checkov.Report:
    """Of all objects of all kustomizations, each checked once; JSON is YAML too."""
    objects = {json.dumps(made, sort_keys=True) for name in KUSTOMIZATIONS for made in render(manifests / name)}
    folder = tmp_path_factory.mktemp("rendered")
    (folder / "all.yaml").write_text("\n---\n".join(sorted(objects)))
    return checkov.check("kubernetes", folder)


@pytest.mark.skipif(not checkov.INSTALLED.exists(), reason="checkov is not installed (.ci/checkov)")
def test_no_policy_is_broken_but_those_waived_with_a_reason(report: checkov.Report):
    assert report.passed > 1000
    assert not report.failed
    assert {finding.policy for finding in report.waived} == WAIVED
    assert all(len(finding.waiver) > 20 for finding in report.waived)
