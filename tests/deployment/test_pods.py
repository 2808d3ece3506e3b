"""Pods: restricted, probed where the code answers, given the time they need, running commands that exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typer
from fastapi.routing import APIRoute

from service.api.routes import health
from service.cli import app
from service.configuration.settings import Settings
from tests.deployment.conftest import ROOT
from tests.deployment.worlds import Pod, World, world

SERVICE_IMAGE = ROOT / "docker/service.Dockerfile"
LEVELS = ("enforce", "audit", "warn")
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
"""Allowed by the level `restricted` of the Pod Security Standards."""


def serving(cluster: World) -> list[Pod]:
    return [pod for pod in cluster.pods() if pod.component in {"service", "rollout"}]


def test_the_namespace_lets_in_restricted_pods_alone(cluster: World):
    (namespace,) = cluster.all("Namespace")
    assert {namespace["metadata"]["labels"][f"pod-security.kubernetes.io/{level}"] for level in LEVELS} == {
        "restricted"
    }


def test_every_pod_is_restricted(cluster: World):
    for pod in cluster.pods():
        security = pod.spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == 10001
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"} & pod.spec.keys()
        assert all(volume.keys() - {"name"} <= VOLUMES for volume in pod.spec["volumes"])
        assert not any("hostPort" in port for port in pod.container.get("ports", []))
        assert pod.container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_no_pod_is_told_of_the_services_beside_it(cluster: World):
    assert all(pod.spec["enableServiceLinks"] is False for pod in cluster.pods())


def test_memory_is_what_was_asked_for_where_a_kill_would_cost_most(cluster: World):
    for pod in cluster.pods():
        resources = pod.container["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys()
        assert "memory" in resources["limits"]
        if "nvidia.com/gpu" in resources["limits"]:
            assert resources["requests"]["memory"] == resources["limits"]["memory"]
            assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod.spec["tolerations"]


def test_every_scratch_volume_has_a_limit(cluster: World):
    for pod in cluster.pods():
        assert all("sizeLimit" in volume["emptyDir"] for volume in pod.spec["volumes"] if "emptyDir" in volume)


def test_images_are_those_that_docker_builds(cluster: World):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    with_gpus = any("nvidia.com/gpu" in pod.container["resources"]["limits"] for pod in cluster.pods())
    for pod in cluster.pods():
        name, _, tag = pod.container["image"].partition(":")
        assert tag == (version if with_gpus else f"{version}-cpu"), pod.name
        program = "evoquality-trainer" if pod.component == "trainer" else "evoquality"
        steps = (ROOT / f"docker/{name.removeprefix('evoquality/')}.Dockerfile").read_text().splitlines()
        assert f'ENTRYPOINT ["{program}"]' in steps
        assert "USER {runAsUser}:{runAsGroup}".format(**pod.spec["securityContext"]) in steps


def test_the_embedded_checkpoint_is_where_its_image_has_it(manifests: Path):
    (pod,) = world(manifests, "cpu").selected({"app.kubernetes.io/component": "import"})
    copied = re.findall(r"^COPY trainer/demo/checkpoint (\S+)$", SERVICE_IMAGE.read_text(), re.MULTILINE)
    assert pod.container["args"][2:3] == copied


def test_every_probe_asks_a_port_and_a_path_that_answer(cluster: World):
    answered = {route.path for route in health.router.routes if isinstance(route, APIRoute)}
    assert serving(cluster)
    for pod in serving(cluster):
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = pod.container[kind]["httpGet"]
            assert asked["path"] in answered
            assert asked["port"] in pod.ports


def test_ports_are_those_that_the_service_listens_on(cluster: World):
    settings = Settings.model_fields
    for pod in serving(cluster):
        assert pod.ports == {"public": settings["port"].default, "operators": settings["operator_port"].default}


def test_the_readiness_probe_waits_longer_than_the_service_waits_for_its_engine(cluster: World):
    for pod in serving(cluster):
        longest = float(
            cluster.environment(pod).get("EVOQUALITY_PROBE_SECONDS", Settings.model_fields["probe_seconds"].default)
        )
        assert pod.container["readinessProbe"]["timeoutSeconds"] > longest
        assert pod.container["startupProbe"]["timeoutSeconds"] > longest


def test_a_slow_start_is_not_killed(cluster: World):
    """The weights are read twice, for their hashes and by the engine: at 50 MB/s, beside a minute of imports."""
    (model,) = cluster.selected({"app.kubernetes.io/component": "import"})
    gigabytes = 16.6 if "7B" in str(model.container["args"]) else 7.5
    for pod in serving(cluster):
        probe = pod.container["startupProbe"]
        needed = 2 * gigabytes * 1000 / 50 + 60
        assert (
            needed < probe["periodSeconds"] * probe["failureThreshold"] < pod.owner["spec"]["progressDeadlineSeconds"]
        )


def test_the_grace_period_outlasts_the_sleep_and_the_drain(cluster: World):
    for pod in serving(cluster):
        drain = float(cluster.environment(pod)["EVOQUALITY_DRAIN_SECONDS"])
        sleep = pod.container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pod.spec["terminationGracePeriodSeconds"] > sleep + drain


def test_the_trainer_waits_longer_than_a_replica_takes_to_come_back(cluster: World):
    for pod in cluster.selected({"app.kubernetes.io/component": "trainer"}):
        for server in serving(cluster):
            probe = server.container["startupProbe"]
            back = probe["periodSeconds"] * probe["failureThreshold"]
            assert float(cluster.environment(pod)["EVOQUALITY_TRAINER_PATIENCE"]) > back


def test_shared_memory_is_memory(cluster: World):
    for pod in cluster.pods():
        if pod.component in {"service", "rollout", "trainer"}:
            (mount,) = (mount for mount in pod.container["volumeMounts"] if mount["mountPath"] == "/dev/shm")
            (volume,) = (volume for volume in pod.spec["volumes"] if volume["name"] == mount["name"])
            assert volume["emptyDir"]["medium"] == "Memory"


@pytest.mark.parametrize("component", ["service", "import"])
def test_the_services_commands_and_flags_exist(cluster: World, component: str):
    for pod in cluster.selected({"app.kubernetes.io/component": component}):
        command, (*arguments,) = typer.main.get_command(app), pod.container["args"]
        while subcommands := getattr(command, "commands", None):
            command = subcommands[arguments.pop(0)]
        assert command.make_context("evoquality", arguments)
