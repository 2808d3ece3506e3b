"""The Indexed Job of a trainer on two nodes, without a cluster and without GPUs: they meet, and tell who failed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.deployment.kubelet.node import node
from tests.deployment.kubelet.pods import running
from tests.deployment.test_kubelet import pods
from tests.deployment.worlds import Pod, world
from trainer.leftovers import folder_lock


def on_cpu(pod: Pod) -> Pod:
    """One process a pod, in place of one for each of its GPUs."""
    args = ["--nproc-per-node=1" if arg == "--nproc-per-node=gpu" else arg for arg in pod.container["args"]]
    return replace(pod, spec=pod.spec | {"containers": [pod.container | {"args": args}]})


@pods
def test_of_two_nodes_that_meet_the_first_tells_why_the_trainer_ended(manifests: Path, tmp_path: Path) -> None:
    base = world(manifests, "base")
    (pod,) = (on_cpu(pod) for pod in base.pods() if pod.owner["spec"].get("completionMode") == "Indexed")
    flags = ("--device=cpu", "--dtype=float32", "--patience=1")
    with (
        node(base, tmp_path, ["evolve-0.trainers", "evolve-1.trainers"]) as here,
        folder_lock(here.claim("versions")),
        running(here, pod, "evolve-0", *flags, JOB_COMPLETION_INDEX="0") as first,
        running(here, pod, "evolve-1", *flags, JOB_COMPLETION_INDEX="1") as second,
    ):
        assert first.wait(300) == 6, first.log.read_text()
        assert second.wait(300) == 3, second.log.read_text()
    assert "another trainer is at work in /store" in first.log.read_text()
    assert "rank 0 ended" in second.log.read_text()
