"""The Jobs' policies against the trainer's error tree: a pod is replaced if starting again can help."""

from __future__ import annotations

import pytest

from tests.deployment.kubelet.node import action
from tests.deployment.kustomize import Object
from tests.deployment.test_evolve import job_of, trainers
from tests.deployment.worlds import World
from trainer.errors import RankLost
from trainer.exit_codes import ExitCode, exit_codes

ROWS = exit_codes()


def jobs(cluster: World) -> list[tuple[Object, str]]:
    return [({"spec": job_of(pod)}, str(pod.container["name"])) for pod in trainers(cluster)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.code))
def test_a_pod_is_replaced_after_every_exit_code_but_those_that_a_person_must_decide_on(
    cluster: World, row: ExitCode
) -> None:
    for job, container in jobs(cluster):
        assert action(job, {container: row.code}) == ("Count" if row.restart else "FailJob")


def test_a_pod_whose_torchrun_lost_the_others_is_replaced(cluster: World) -> None:
    for job, container in jobs(cluster):
        assert action(job, {container: RankLost.exit_code}) == "Count"


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
