"""Pods of the overlay for the CPU, run without a cluster: what a container is given, and what it is not."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.versions.store import VersionStore
from tests.deployment.kubelet.node import Node, missing, node
from tests.deployment.kubelet.pods import environment, expanded, running
from tests.deployment.worlds import Pod, World, world
from trainer.errors import Occupied
from trainer.leftovers import folder_lock

WHY_NOT = missing()
pods = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


@pytest.fixture
def cpu(manifests: Path) -> World:
    return world(manifests, "cpu")


@pytest.fixture
def here(cpu: World, tmp_path: Path) -> Iterator[Node]:
    with node(cpu, tmp_path) as made:
        yield made


def pod_of(cluster: World, component: str) -> Pod:
    (found,) = cluster.selected({"app.kubernetes.io/component": component})
    return found


def doing(pod: Pod, script: str, **spec: object) -> Pod:
    """The pod with a shell script for its command."""
    container = pod.container | {"command": ["sh", "-c", script], "args": []}
    return replace(pod, spec=pod.spec | {"containers": [container]} | spec)


def told(here: Node, pod: Pod, script: str) -> list[str]:
    """The output of a script in the pod's container."""
    with running(here, doing(pod, script), "a-pod") as process:
        assert process.wait(300) == 0, process.log.read_text()
        return process.log.read_text().splitlines()


def test_variables_are_expanded_as_kubernetes_does() -> None:
    assert expanded("/runs/$(JOB)/$(UNKNOWN)/$$(JOB)/$JOB", {"JOB": "a"}) == "/runs/a/$(UNKNOWN)/$(JOB)/$JOB"


def test_a_trainers_environment_is_the_images_the_config_maps_and_the_pods(cpu: World) -> None:
    pod = pod_of(cpu, "trainer")
    labels = {"batch.kubernetes.io/job-name": "photos"}
    values = environment(pod.container, {"metadata": {"name": "photos-x", "labels": labels}}, cpu)
    assert values["EVOQUALITY_TRAINER_RUN"] == "/runs/photos"
    assert values["EVOQUALITY_TRAINER_DEVICE"] == "cpu", "the overlay's goes before the base's"
    assert values["PATH"].startswith("/opt/venv/bin:/usr")
    assert values["HOSTNAME"] == "photos-x"


@pods
@pytest.mark.parametrize("component", ["service", "trainer", "import"])
def test_a_container_has_its_user_and_nothing_of_roots(here: Node, cpu: World, component: str) -> None:
    script = "id -u; id -g; id -G; grep -E 'Cap|NoNewPrivs' /proc/self/status; echo $$; touch /x 2>&1 || pwd"
    *who, process, refused, folder = told(here, pod_of(cpu, component), script)
    assert who[:3] == ["10001", "10001", "10001"]
    rights = dict(line.split() for line in who[3:])
    assert rights.pop("NoNewPrivs:") == "1"
    assert set(rights.values()) == {"0" * 16}
    assert process == "1"
    assert "Read-only file system" in refused
    assert folder == "/tmp"


@pods
def test_the_service_may_read_the_store_and_the_trainer_write_it(here: Node, cpu: World) -> None:
    script = "cat /etc/evoquality/operator.key; touch /store/x 2>/dev/null && echo written || echo refused"
    assert told(here, pod_of(cpu, "trainer"), script) == ["a key of its own", "written"]
    with running(here, doing(pod_of(cpu, "service"), script), "service-pod") as process:
        assert process.wait(300) == 0
    assert process.log.read_text().splitlines() == ["a key of its own", "refused"]


@pods
def test_a_pod_ends_at_sigterm_or_is_killed_when_its_time_is_over(here: Node, cpu: World) -> None:
    trainer = pod_of(cpu, "trainer")
    ends = doing(trainer, "trap 'exit 143' TERM; echo up; while :; do sleep 0.05; done")
    stays = doing(trainer, "trap '' TERM; echo up; while :; do sleep 0.05; done", terminationGracePeriodSeconds=1)
    for name, pod, code in (("ends", ends, 143), ("stays", stays, 128 + signal.SIGKILL)):
        with running(here, pod, name) as process:
            while not process.log.read_text():
                assert process.process.poll() is None
            assert process.stop() == code


@pods
def test_the_import_job_fills_a_store_once(here: Node, cpu: World) -> None:
    for attempt in ("first", "second"):
        with running(here, pod_of(cpu, "import"), f"import-{attempt}") as process:
            assert process.wait(300) == 0, process.log.read_text()
    store = VersionStore(here.claim("versions"))
    (version,) = store.list()
    assert store.active() is not None and store.verify(version.id)
    assert {path.stat().st_uid for path in store.path(version.id).iterdir()} == {10001}


@pods
def test_a_trainer_that_waits_for_its_service_keeps_others_out_and_ends_at_sigterm(here: Node, cpu: World) -> None:
    with running(here, pod_of(cpu, "trainer"), "evolve-1") as process:
        while "service unreachable" not in process.log.read_text():
            assert process.process.poll() is None, process.log.read_text()
            time.sleep(0.05)
        for folder in (here.claim("versions"), here.claim("runs") / "evolve"):
            with pytest.raises(Occupied), folder_lock(folder):
                pass
        assert process.stop() == 143
    assert "s of 900): http://operators:8001" in process.log.read_text()
    assert "ended by SIGTERM; start it again to go on" in process.log.read_text()
    assert (here.claim("runs") / "evolve/settings.json").exists()
