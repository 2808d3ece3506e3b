"""Rounds of the overlay for the CPU, without a cluster: import, service and trainer by their manifests, real engine."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.versions.store import VersionStore
from tests.deployment.kubelet.node import Node, action, node
from tests.deployment.kubelet.pods import Running, running
from tests.deployment.test_kubelet import pod_of, pods
from tests.deployment.worlds import Pod, world
from trainer.demo.contents import content
from trainer.files import read_json

pytestmark = [pytest.mark.engine, pods]

FLAGS = (
    "--rounds=1", "--variants=3", "--groups=4", "--group-size=4", "--held-back-groups=1", "--samples=4", "--rank=8",
    "--gate-unreadable=1", "--gate-agreement-loss=1", "--gate-spread=0", "--gate-largest-spread=100", "--gate-drift=4",
    "--gate-position-bias=1",
)  # fmt: skip
"""A few seconds' round, that passes the gate."""
STAGES = ("start.json", "pool.jsonl", "votes.jsonl", "votes.done", "train/steps.jsonl", "gate.json", "candidate.json")


def until(reached: Callable[[], object], process: Running, seconds: float) -> None:
    """Waits. Fails with the log if the pod ends before, or if it takes too long."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert process.process.poll() is None and time.monotonic() < deadline, process.log.read_text()[-4000:]
        time.sleep(0.05)


def probe(kind: str, pod: Pod, where: Node) -> str | None:
    """The answer to kubelet's probe of that kind."""
    asked = pod.container[f"{kind}Probe"]
    return where.get(pod.ports[asked["httpGet"]["port"]], asked["httpGet"]["path"], asked["timeoutSeconds"])


@pytest.fixture(scope="module")
def here(manifests: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with a pool of five pictures and a store that was imported."""
    cpu, folder = world(manifests, "cpu"), tmp_path_factory.mktemp("node")
    with node(cpu, folder) as made:
        for index in range(5):
            content("pool", index).save(made.claim("pool") / f"{index}.png")
        with running(made, pod_of(cpu, "import"), "import-1") as process:
            assert process.wait(300) == 0, process.log.read_text()
        yield made


@pytest.fixture(scope="module")
def service(here: Node) -> Iterator[Running]:
    """The serving pod, once it is ready."""
    pod = pod_of(here.world, "service")
    with running(here, pod, "service-1") as process:
        until(lambda: probe("startup", pod, here), process, 240)
        yield process


@pytest.fixture
def job(here: Node) -> Pod:
    """The trainer's, launched as `photos`."""
    pod = pod_of(here.world, "trainer")
    return replace(pod, owner=pod.owner | {"metadata": pod.owner["metadata"] | {"name": "photos"}})


def served(here: Node) -> str:
    return str(json.loads(here.get(8000, "/v1/info") or "{}")["version"])


def test_a_job_that_is_evicted_goes_on_in_its_next_pod_and_the_service_follows(
    here: Node, service: Running, job: Pod
) -> None:
    store, run = VersionStore(here.claim("versions")), here.claim("runs") / "photos" / "round-1"
    first = served(here)
    draw = random.Random(seed := time.time_ns())
    stage, delay = draw.choice(STAGES), draw.uniform(0, 0.5)
    print(f"seed {seed}: SIGTERM {delay:.2f} s after {stage}")

    with running(here, job, "photos-1", *FLAGS) as trainer:
        until((run / stage).exists, trainer, 120)
        time.sleep(delay)
        began = time.monotonic()
        code = trainer.stop()
        assert time.monotonic() - began < job.spec["terminationGracePeriodSeconds"]
        assert code == 143, trainer.log.read_text()[-4000:]
    assert action(job.owner, {"trainer": code}, {"DisruptionTarget"}) == "Ignore", "replaced, and not counted"
    assert action(job.owner, {"trainer": code}) == "Count", "replaced"

    with running(here, job, "photos-2", *FLAGS) as trainer:
        assert trainer.wait(180) == 0, trainer.log.read_text()[-4000:]
    promoted = read_json(run / "candidate.json")["id"]
    active = store.active()
    assert active is not None
    assert (active.version, active.previous) == (promoted, first)
    assert served(here) == promoted != first
    pod = pod_of(here.world, "service")
    assert all(probe(kind, pod, here) for kind in ("startup", "readiness", "liveness"))
