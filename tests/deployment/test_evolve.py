"""The Jobs that evolve: what ends them, what starts them again, where they go on."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

from tests.deployment.conftest import ROOT
from tests.deployment.kustomize import Object, render
from tests.deployment.test_kustomize import kubectl_is_new_enough
from tests.deployment.worlds import Pod, World, expanded
from tests.service.conftest import Listening
from trainer import cli
from trainer.exit_codes import exit_codes

NEVER_AGAIN = {row.code for row in exit_codes() if not row.restart}
LAUNCH = ROOT / "k8s/evolve/launch"


def trainers(cluster: World) -> list[Pod]:
    return cluster.selected({"app.kubernetes.io/component": "trainer"})


def job_of(pod: Pod) -> Object:
    spec = pod.owner["spec"]
    return spec["jobTemplate"]["spec"] if pod.owner["kind"] == "CronJob" else spec


def test_an_eviction_is_not_counted_and_a_decision_ends_the_job(cluster: World):
    for pod in trainers(cluster):
        ignored, final = job_of(pod)["podFailurePolicy"]["rules"]
        assert ignored == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
        assert final["action"] == "FailJob"
        assert final["onExitCodes"]["containerName"] == pod.container["name"]
        assert final["onExitCodes"]["operator"] == "In"
        assert set(final["onExitCodes"]["values"]) == NEVER_AGAIN


def test_no_two_trainers_work_at_once(cluster: World):
    for pod in trainers(cluster):
        job = job_of(pod)
        assert pod.spec["restartPolicy"] == "Never"
        assert job["podReplacementPolicy"] == "Failed"
        assert job["parallelism"] == job["completions"]
        if pod.owner["kind"] == "CronJob":
            assert pod.owner["spec"]["concurrencyPolicy"] == "Forbid"
        if job["parallelism"] > 1:
            assert job["completionMode"] == "Indexed"


def test_a_job_ends_some_day_and_its_log_can_be_read_for_days(cluster: World):
    for pod in trainers(cluster):
        assert 86_400 <= job_of(pod)["activeDeadlineSeconds"] <= 7 * 86_400
        assert job_of(pod)["ttlSecondsAfterFinished"] >= 3 * 86_400
        assert job_of(pod)["backoffLimit"] >= 3


def test_a_pod_that_replaces_another_finds_its_run(cluster: World):
    for pod in trainers(cluster):
        variables = {each["name"]: each for each in pod.container["env"]}
        label = variables["JOB_NAME"]["valueFrom"]["fieldRef"]["fieldPath"]
        assert label == "metadata.labels['batch.kubernetes.io/job-name']"
        assert variables["EVOQUALITY_TRAINER_RUN"]["value"] == "/runs/$(JOB_NAME)"
        names = list(variables)
        assert names.index("JOB_NAME") < names.index("EVOQUALITY_TRAINER_RUN"), "expanded only if it comes before"


def test_the_command_is_one_of_the_trainers(cluster: World):
    for pod in trainers(cluster):
        assert pod.container["args"][-1] == "evolve"
        assert "evolve" in cli.Trainer.model_fields
        if "command" not in pod.container:
            assert pod.container["args"] == ["evolve"]


def test_torchrun_is_started_on_every_node_and_led_by_the_first(manifests: Path):
    (job,) = render(manifests / "evolve/torchrun")
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    python, m, module = container["command"]
    assert (python, m) == ("python", "-m")
    assert (ROOT / f"{module.replace('.', '/')}.py").exists()
    known = {"JOB_NAME": "photos", "JOB_COMPLETION_INDEX": "1"}
    arguments = [expanded(argument, known) for argument in container["args"]]
    given = get_args_parser().parse_args(arguments)
    flags = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    assert len(flags) == len(set(flags)), "of a flag that is given twice the last counts, unsaid"
    assert int(given.nnodes) == job["spec"]["parallelism"] == job["spec"]["completions"]
    assert given.node_rank == 1
    assert given.master_addr == f"photos-0.{spec['subdomain']}"
    assert given.master_port in {port["containerPort"] for port in container["ports"]}
    assert given.shutdown_timeout < spec["terminationGracePeriodSeconds"]
    assert given.module
    assert (given.training_script, given.training_script_args) == ("trainer", ["evolve"])


def test_the_cronjob_makes_the_same_job(manifests: Path):
    (job,), (cronjob,) = render(manifests / "evolve/job"), render(manifests / "evolve/cronjob")
    assert cronjob["spec"]["jobTemplate"]["spec"] == job["spec"]
    assert cronjob["spec"]["timeZone"]
    assert cronjob["spec"]["startingDeadlineSeconds"] > 100, "less than the controller looks back at once"


def launched(*arguments: str) -> Object:
    told = subprocess.run([LAUNCH, *arguments, "--print"], capture_output=True, text=True, check=True)
    return yaml.safe_load(told.stdout)


@pytest.mark.skipif(not kubectl_is_new_enough(), reason="no kubectl with a kustomize of these days")
@pytest.mark.parametrize("variant", ["evolve/job", "evolve/torchrun", "overlays/cpu/evolve"])
def test_launch_changes_the_name_and_adds_the_flags_and_nothing_else(variant: str):
    flags = ["--pool", '/pool/a "b" \\c', "--rounds=3", "--base", "v9df0ac5853e5"]
    (wanted,) = render(ROOT / "k8s" / variant)
    wanted["metadata"]["name"] = "photos-1"
    wanted["spec"]["template"]["spec"]["containers"][0]["args"] += flags
    assert launched("photos-1", f"--variant={ROOT / 'k8s' / variant}", *flags) == wanted


KUBECTL = """#!{python}
import os, shutil, subprocess, sys
words = sys.argv[1:]
if words[0] == "get":
    print(os.environ["TEST_GPUS"], end="")
elif words[0] == "exec":
    sys.exit(subprocess.call(words[words.index("--") + 1 :]))
else:
    os.execv("{kubectl}", ["kubectl", *words])
"""
"""kubectl beside a service of this machine in place of a cluster's."""


@pytest.mark.skipif(not kubectl_is_new_enough(), reason="no kubectl with a kustomize of these days")
@pytest.mark.parametrize(
    ("size", "gpus", "memory", "days"),
    [(3_754_622_976, "1", 32, 2), (8_292_166_656, "1", 48, 5), (33_452_718_336, "4", 144, 5), (2_000_000, "", 6, 2)],
)
def test_launch_without_more_fits_the_version_that_serves(
    listening: Listening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, gpus: str, memory: int, days: int
):
    monkeypatch.setattr(type(listening.world.service.swapper), "parameters", property(lambda _: size))
    stand_in = tmp_path / "kubectl"
    stand_in.write_text(KUBECTL.format(python=sys.executable, kubectl=shutil.which("kubectl")))
    stand_in.chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    for name, value in {"PATH": path, "TEST_GPUS": gpus, "EVOQUALITY_URL": listening.url}.items():
        monkeypatch.setenv(name, value)
    job = launched("photos-1", "--pool", "/pool/photos")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["evolve", "--pool", "/pool/photos"]
    assert container["resources"]["limits"] == {"memory": f"{memory}Gi", **({"nvidia.com/gpu": "1"} if gpus else {})}
    assert job["spec"]["activeDeadlineSeconds"] == days * 86_400
    assert job["metadata"]["name"] == "photos-1"
    if gpus:
        assert container["resources"]["requests"]["memory"] == f"{memory}Gi"
        assert 12 < memory - training_of(size) < 24


def training_of(size: int) -> float:
    """GiB of the weights in 16 bits, once on the way to the GPU and once when an adapter is merged."""
    return 2 * 2 * size / 2**30


@pytest.mark.skipif(not kubectl_is_new_enough(), reason="no kubectl with a kustomize of these days")
def test_launch_says_what_to_do_if_no_service_can_be_asked():
    told = subprocess.run([LAUNCH, "photos-1", "--print"], capture_output=True, text=True)
    assert told.returncode == 3
    assert "--variant FOLDER" in told.stderr


def test_launch_explains_itself_and_its_example_is_taken_by_the_trainer(tmp_path: Path):
    told = subprocess.run([LAUNCH], capture_output=True, text=True, check=True).stdout
    (example,) = re.findall(r"^Example: k8s/evolve/launch \S+ (.*)$", told, re.MULTILINE)
    flags = shlex.split(example.replace("/pool/photos", str(tmp_path)))
    settings = cli.CliApp.run(cli.EvolveSettings, [*flags, f"--run={tmp_path}"], cli_exit_on_error=False)
    assert settings.rounds == 2
