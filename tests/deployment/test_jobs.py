"""Which of the trainer's exit codes have a pod replaced, by the Jobs' own policies: as the README tells."""

from __future__ import annotations

import re

import pytest

from tests.deployment.conftest import ROOT
from tests.deployment.kubelet.jobs import action
from tests.deployment.kustomize import Object
from tests.deployment.test_evolve import job_of, trainers
from tests.deployment.worlds import World
from trainer import cli

_ROW = re.compile(r"^\| ([\d, ]+) \| .* \| (.*)\|$", re.MULTILINE)
TOLD = {
    int(code): not re.match("no\\b", advice)
    for codes, advice in _ROW.findall(
        (ROOT / "README.md").read_text().partition("| Exit code |")[2].partition("\n\n")[0]
    )
    for code in codes.split(",")
}
"""Whether to start the trainer again after each exit code."""


def jobs(cluster: World) -> list[tuple[Object, str]]:
    return [({"spec": job_of(pod)}, str(pod.container["name"])) for pod in trainers(cluster)]


def test_the_readme_tells_of_every_exit_code() -> None:
    own = {code for name, code in vars(cli).items() if name.startswith("EXIT_")}
    assert TOLD.keys() == own | {0, 1, 130, 137, 143}


@pytest.mark.parametrize("code", sorted(TOLD.keys() - {0}))
def test_a_pod_is_replaced_after_the_exit_codes_that_the_readme_says_to_start_again_after(
    cluster: World, code: int
) -> None:
    for job, container in jobs(cluster):
        assert action(job, {container: code}) == ("Count" if TOLD[code] else "FailJob")


@pytest.mark.parametrize("code", [137, 143])
def test_a_pod_that_is_evicted_is_replaced_however_often(cluster: World, code: int) -> None:
    for job, container in jobs(cluster):
        assert action(job, {container: code}, {"DisruptionTarget"}) == "Ignore"


def test_the_first_rule_that_fits_decides() -> None:
    codes = {"containerName": "trainer", "operator": "NotIn", "values": [42]}
    conditions = [{"type": "DisruptionTarget", "status": "False"}, {"type": "Other"}]
    rules = [{"action": "FailJob", "onExitCodes": codes}, {"action": "Ignore", "onPodConditions": conditions}]
    job = {"spec": {"podFailurePolicy": {"rules": rules}}}
    assert action(job, {"trainer": 1}, {"Other"}) == "FailJob"
    assert action(job, {"trainer": 42, "sidecar": 1}, {"Other"}) == "Ignore"
    assert action(job, {"trainer": 42}, {"DisruptionTarget"}) == "Count"
    assert action({"spec": {}}, {"trainer": 1}) == "Count"
